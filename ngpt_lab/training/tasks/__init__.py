"""Fine-tuning: LightningModules for sequences, tokens and spans, with either backbone."""

from ngpt_lab.training.tasks.problems import MultiLabel, Regression, SingleLabel
from ngpt_lab.training.tasks.sequences import SequenceClassification
from ngpt_lab.training.tasks.spans import QuestionAnswering
from ngpt_lab.training.tasks.tokens import TokenClassification

__all__ = ["MultiLabel", "QuestionAnswering", "Regression", "SequenceClassification", "SingleLabel", "TokenClassification"]
