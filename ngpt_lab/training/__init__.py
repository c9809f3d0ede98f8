"""Training: LightningModules, callbacks, optimizers, schedules, and the record a run leaves."""

from ngpt_lab.training.language_model import LanguageModel
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.muon import Muon
from ngpt_lab.training.normalize_weights import NormalizeWeights
from ngpt_lab.training.optimizers import AdamW
from ngpt_lab.training.schedules import Cosine, Linear, WarmupStableDecay
from ngpt_lab.training.tasks import QuestionAnswering, SequenceClassification, TokenClassification

__all__ = [
    "AdamW",
    "BackboneModule",
    "Cosine",
    "LanguageModel",
    "Linear",
    "Muon",
    "NormalizeWeights",
    "QuestionAnswering",
    "SequenceClassification",
    "TokenClassification",
    "WarmupStableDecay",
]
