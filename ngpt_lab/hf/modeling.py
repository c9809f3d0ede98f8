"""The Hugging Face classes with heads, and their registration with transformers' Auto classes."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.generation.utils import GenerationMixin
from transformers.modeling_layers import (
    GenericForQuestionAnswering,
    GenericForSequenceClassification,
    GenericForTokenClassification,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.utils.generic import can_return_tuple

from ngpt_lab.hf.base import NGPTModel, NGPTPreTrainedModel, fields_of
from ngpt_lab.hf.checkpoint import register_keys
from ngpt_lab.hf.configuration import NGPTConfig
from ngpt_lab.hf.losses import next_token_loss, pooled_loss, token_loss
from ngpt_lab.hf.resizing import fitting_weight
from ngpt_lab.interop.hf_ngpt import head


class NGPTForCausalLM(NGPTPreTrainedModel, GenerationMixin):
    """nGPT with its language-model head."""

    _tied_weights_keys = {"lm_head.matrix.weight": "model.decoder.embedding.weight"}  # noqa: RUF012 (transformers' own)

    def __init__(self, config: NGPTConfig) -> None:
        super().__init__(config)
        self.model, self.vocab_size = NGPTModel(config), config.vocab_size
        self.lm_head = head(fields_of(config))(self.model.decoder.dims, self.model.decoder.embedding.weight)
        self.loss_function = next_token_loss
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The output embedding; what the head scales its logits by is apart."""
        return self.lm_head.matrix

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Another output embedding's matrix (V, C); what the logits are scaled by stays."""
        self.lm_head.matrix.weight = fitting_weight(value, self.lm_head.matrix.weight.shape)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """Logits (B, T, V), and with `labels` (B, T), the tokens themselves, the mean cross-entropy in nats.

        `logits_to_keep` is a number of last positions, 0 for all, or their indices; the other arguments are those of
        `NGPTModel`.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head.logits(outputs.last_hidden_state[:, kept, :])
        loss = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class NGPTForSequenceClassification(GenericForSequenceClassification, NGPTPreTrainedModel):
    """nGPT with one answer a sequence, read at its last token that is no padding."""

    def __init__(self, config: NGPTConfig) -> None:
        super().__init__(config)
        self.loss_function = partial(pooled_loss, self.loss_function)


class NGPTForTokenClassification(GenericForTokenClassification, NGPTPreTrainedModel):
    """nGPT with one answer a token."""

    def __init__(self, config: NGPTConfig) -> None:
        super().__init__(config)
        self.loss_function = partial(token_loss, self.loss_function)


class NGPTForQuestionAnswering(GenericForQuestionAnswering, NGPTPreTrainedModel):
    """nGPT that marks where an answer starts and ends."""

    get_input_embeddings = NGPTPreTrainedModel.get_input_embeddings
    set_input_embeddings = NGPTPreTrainedModel.set_input_embeddings


AUTO_CLASSES = {
    AutoModel: NGPTModel,
    AutoModelForCausalLM: NGPTForCausalLM,
    AutoModelForSequenceClassification: NGPTForSequenceClassification,
    AutoModelForTokenClassification: NGPTForTokenClassification,
    AutoModelForQuestionAnswering: NGPTForQuestionAnswering,
}


def register() -> None:
    """Tell transformers about the classes and their checkpoints; a second time changes nothing."""
    register_keys(NGPTConfig.model_type)
    AutoConfig.register(NGPTConfig.model_type, NGPTConfig, exist_ok=True)
    for auto, model in AUTO_CLASSES.items():
        auto.register(NGPTConfig, model, exist_ok=True)


register()
