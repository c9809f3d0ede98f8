"""What the Hugging Face classes share, and the model without a head: our own decoder inside."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from ngpt_lab.errors import InputError
from ngpt_lab.hf.attention import eager_attention
from ngpt_lab.hf.checkpoint import from_column, reference_name
from ngpt_lab.hf.configuration import NGPTConfig
from ngpt_lab.hf.resizing import resized_rows, resized_scale
from ngpt_lab.interop.fields import Fields
from ngpt_lab.interop.hf_ngpt import DEFAULTS, KIND, build
from ngpt_lab.models.decoder import Block, last
from ngpt_lab.nn.attention import Context
from ngpt_lab.nn.linear import StreamMatrix
from ngpt_lab.nn.scale import Scale
from ngpt_lab.sphere import unit, widen

logger = logging.get_logger(__name__)


def fields_of(config: Any) -> Fields:
    """What the config says about the function; anything else in it is transformers' or the user's."""
    said = config.to_dict()
    return Fields(KIND, {name: said[name] for name in DEFAULTS if name in said}, DEFAULTS)


class NGPTPreTrainedModel(PreTrainedModel):
    """Loading, saving, initialisation and embeddings of all NGPT classes."""

    config: NGPTConfig
    config_class = NGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]  # noqa: RUF012 (transformers reads and extends these)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    # The eigen learning rates: under float16 and bfloat16 only, as in the reference.
    _keep_in_fp32_modules_strict = ["alpha"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Step 0: matrices on the sphere, scales constant; what has been loaded is left alone."""
        if isinstance(module, StreamMatrix):
            loaded = getattr(module.weight, "_is_hf_initialized", False)
            module.reset_parameters()
            if not loaded:
                module.weight.copy_(unit(module.weight, module.norm_dim))
        elif isinstance(module, Scale):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> Any:
        """The token embedding."""
        base: Any = self.base_model
        return base.decoder.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another token embedding."""
        base: Any = self.base_model
        base.decoder.embedding = value

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Write the model under the reference's names; the arguments are transformers' own."""
        self._weight_conversions = None  # by the whole table: transformers keeps only what it had use for on loading
        return super().save_pretrained(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As in torch, under the reference's names and shapes too: transformers' Trainer hands a saved file over as it is."""
        ours = {reference_name(name): name for name in self.state_dict()}
        tensors = {ours.get(name, name): from_column(name, tensor) for name, tensor in state_dict.items()}
        return super().load_state_dict(tensors, *args, **kwargs)

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        """Report under the reference's names, those of the file."""
        super()._adjust_missing_and_unexpected_keys(loading_info)
        loading_info.missing_keys = {reference_name(key) for key in loading_info.missing_keys}
        loading_info.unexpected_keys = {reference_name(key) for key in loading_info.unexpected_keys}
        loading_info.mismatched_keys = {(reference_name(key), *shapes) for key, *shapes in loading_info.mismatched_keys}

    def _resize_token_embeddings(
        self, new_num_tokens: int | None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> Any:
        """Grow or shrink whatever has an entry a token; new rows are on the sphere."""
        embedding, head = self.get_input_embeddings(), getattr(self, "lm_head", None)
        size = embedding.weight.shape[0] if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of is not None:
            size = -(-size // pad_to_multiple_of) * pad_to_multiple_of
        if size == embedding.weight.shape[0]:
            return embedding
        embedding.weight = resized_rows(embedding.weight, size, mean_resizing)
        if head is not None:
            tied = self.config.tie_word_embeddings
            head.matrix.weight = embedding.weight if tied else resized_rows(head.matrix.weight, size, mean_resizing)
            head.s_z.stored = resized_scale(head.s_z, size, mean_resizing)
        return embedding


class NGPTModel(NGPTPreTrainedModel):
    """nGPT without a head: tokens to the residual stream."""

    gradient_checkpointing = False

    def __init__(self, config: NGPTConfig) -> None:
        super().__init__(config)
        self.decoder = build(fields_of(config), no_head)
        for name, part in self.decoder.named_modules():
            if name.endswith("alpha") and torch.finfo(self.dtype).bits < 32:
                part.float()
        for block in self.decoder.blocks:
            layer: Any = block.attention  # gets what transformers' attention functions ask of one
            layer.layer_idx, layer.is_causal, layer.config = layer.layer, True, config
            layer.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """The residual stream after the last block.

        Args:
            input_ids: tokens (B, T), the last T of S positions where a cache holds the others.
            attention_mask: which of the S positions hold a token (B, S), 1 or 0; or whatever the attention function takes.
            position_ids: each token's position (B or 1, T); by default they count on from the cache.
            past_key_values: the cache; it is extended.
            inputs_embeds: the embedded tokens (B, T, C), in place of `input_ids`.
            use_cache: whether to make a cache where none is given.
            output_hidden_states: whether to show the stream after the embedding and after each block.
            output_attentions: whether to show each layer's attention weights (B, H, T, S); `eager` has them.
            kwargs: for the attention function.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        x = widen(self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds)
        past, dtype = self._cache(past_key_values, use_cache), self.dtype
        if position_ids is None:
            seen = 0 if past is None else past.get_seq_length()
            position_ids = (torch.arange(x.shape[1], device=x.device) + seen)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x.new_empty((*x.shape[:2], 0), dtype=dtype),  # its sizes, device and dtype are all that is read
            attention_mask=attention_mask,
            past_key_values=past,
            position_ids=position_ids,
        )
        show_weights = self.config.output_attentions if output_attentions is None else output_attentions
        weights: list[Tensor] = []
        attend = self._attend(weights, output_attentions=show_weights, position_ids=position_ids, **kwargs)
        through = self.decoder.through(x, self._context(position_ids, mask, past, attend), self._call(attend))
        show_stream = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        stream = list(through) if show_stream else [last(through)]
        return BaseModelOutputWithPast(
            last_hidden_state=self.decoder.final(stream[-1]).to(dtype),
            past_key_values=past,
            hidden_states=tuple(h.to(dtype) for h in stream) if show_stream else None,
            attentions=tuple(weights) if show_weights and weights else None,
        )

    def _cache(self, given: Any, use_cache: bool | None) -> Any:
        wanted = self.config.use_cache if use_cache is None else use_cache
        if self.gradient_checkpointing and self.training:
            if wanted or given is not None:
                logger.warning_once("`use_cache=True` is incompatible with gradient checkpointing. Setting `use_cache=False`.")
            return None
        return DynamicCache(config=self.config) if wanted and given is None else given

    def _attend(self, weights: list[Tensor], **kwargs: Any) -> Callable[..., Tensor]:
        """transformers' attention function for the decoder, told the layer first; weights it shows go to `weights`."""
        name = self.config._attn_implementation
        function = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)

        def attend(layer: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: float, dropout: float) -> Tensor:
            if "flash" in (name or "") and v.dtype.itemsize > 2:
                raise InputError(f"attention {name!r} computes in half precision: load the model with dtype=torch.bfloat16")
            mask = mask if mask is None else mask.to(q.device)
            out, shown = function(layer, q, k, v, mask, scaling=scale, dropout=dropout, **kwargs)
            if shown is not None:
                weights.append(shown)
            return out.transpose(1, 2)

        return attend

    def _context(self, positions: Tensor, mask: Any, cache: Any, attend: Callable[..., Tensor]) -> Context:
        """The decoder's context, for blocks that may stand on several devices."""
        table = self.decoder.rotary.table(positions)

        def rotate(x: Tensor) -> Tensor:
            near = table if table[0].device == x.device else (table[0].to(x.device), table[1].to(x.device))
            return self.decoder.rotary.rotate(x, near)

        return Context(rotate, mask, cache, attend)

    def _call(self, attend: Callable[..., Tensor]) -> Callable[..., Any]:
        """Carry a block out with `attend` told its layer, also where it is carried out once more for its gradients."""
        checkpointed = self.gradient_checkpointing and self.training

        def call(block: Block, x: Tensor, context: Context, first: Tensor | None) -> Any:
            context = replace(context, attend=partial(attend, block.attention))
            if checkpointed:
                return self._gradient_checkpointing_func(block.__call__, x, context, first)
            return block(x, context, first)

        return call


def no_head(*_: Any) -> Any:
    """In place of the decoder's own head."""
    return None
