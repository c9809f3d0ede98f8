"""The Hugging Face classes around our decoder; to import this package registers them with transformers' Auto classes."""

from ngpt_lab.hf.base import NGPTModel
from ngpt_lab.hf.configuration import NGPTConfig
from ngpt_lab.hf.modeling import (
    NGPTForCausalLM,
    NGPTForQuestionAnswering,
    NGPTForSequenceClassification,
    NGPTForTokenClassification,
)

__all__ = [
    "NGPTConfig",
    "NGPTForCausalLM",
    "NGPTForQuestionAnswering",
    "NGPTForSequenceClassification",
    "NGPTForTokenClassification",
    "NGPTModel",
]
