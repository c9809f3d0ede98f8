"""transformers' own model and generation tests of our classes. No wheel has them, so they need a source checkout:

PYTHONPATH=~/transformers python -m pytest --import-mode=prepend -W default tests/hf/transformers_mixins.py
"""

import unittest

import torch
from tests.generation.test_utils import GenerationTesterMixin
from tests.test_modeling_common import ModelTesterMixin
from transformers.models.auto import modeling_auto

from ngpt_lab.hf import (
    NGPTConfig,
    NGPTForCausalLM,
    NGPTForQuestionAnswering,
    NGPTForSequenceClassification,
    NGPTForTokenClassification,
    NGPTModel,
)

# Where the mixins look up what labels a class takes.
for mapping, cls in (
    (modeling_auto.MODEL_MAPPING_NAMES, NGPTModel),
    (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, NGPTForCausalLM),
    (modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, NGPTForSequenceClassification),
    (modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES, NGPTForTokenClassification),
    (modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES, NGPTForQuestionAnswering),
):
    mapping["ngpt"] = cls.__name__

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Tester:
    """Small sizes and random tokens, as the mixins ask for them."""

    batch_size, seq_length, is_training = 3, 7, True

    def __init__(self) -> None:
        for name, value in SIZES.items():
            setattr(self, name, value)

    def get_config(self) -> NGPTConfig:
        return NGPTConfig(**SIZES)

    def prepare_config_and_inputs_for_common(self):
        tokens = torch.randint(3, 99, (self.batch_size, self.seq_length))
        return self.get_config(), {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


class TestNGPT(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    """All of them that concern a decoder."""

    all_generative_model_classes = (NGPTForCausalLM,)
    all_model_classes = (
        NGPTModel,
        NGPTForCausalLM,
        NGPTForSequenceClassification,
        NGPTForTokenClassification,
        NGPTForQuestionAnswering,
    )

    # They ask for an nn.Embedding by its type, and for layers that checkpoint themselves: here the model does it.
    test_model_get_set_embeddings = test_gradient_checkpointing_enable_disable = None
    test_training_gradient_checkpointing = None
    test_training_gradient_checkpointing_use_reentrant_false = None
    test_training_gradient_checkpointing_use_reentrant_true = None
    # New rows are on the sphere, not at the mean of the old ones.
    test_resize_tokens_embeddings = test_resize_embeddings_untied = None
    # Missing tensors are reported under the file's names, not under the parameters'.
    test_model_weights_reload_no_missing_tied_weights = None
    # There is no scaled rope.
    test_model_rope_scaling_from_config_0_linear = None
    test_model_rope_scaling_from_config_1_dynamic = None
    test_model_rope_scaling_from_config_2_yarn = None

    def setUp(self) -> None:
        self.model_tester = Tester()
