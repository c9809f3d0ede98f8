"""Training: LightningModules, callbacks, optimizers, schedules, and the record a run leaves."""

from ngpt_lab.training.module import BackboneModule, LanguageModel
from ngpt_lab.training.normalize_weights import NormalizeWeights
from ngpt_lab.training.optimizers import AdamW
from ngpt_lab.training.schedules import Cosine, Linear, WarmupStableDecay

__all__ = ["AdamW", "BackboneModule", "Cosine", "LanguageModel", "Linear", "NormalizeWeights", "WarmupStableDecay"]
