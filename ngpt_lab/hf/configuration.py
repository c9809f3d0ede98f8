"""The config of the Hugging Face classes: transformers' own field names, the defaults of Normalized-Nemotron-8B."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from ngpt_lab.errors import InputError

# What a config.json holds at its top level (4.x) or in `rope_parameters` (5.x), with the 8B's values.
ROPE_DEFAULTS = {"rope_theta": 1e6, "partial_rotary_factor": 1.0}


@strict
class NGPTConfig(PreTrainedConfig):
    """Sizes and starting values of an nGPT.

    `initializer_range`, `suv_init_scaling` and the `*_init_value` enter the forward pass: a scale is used at
    stored * init_value / scaling. `rope_theta` and `partial_rotary_factor` may stand at the top level, in `rope_parameters` or
    in `rope_scaling`; they are saved at the top level and in `rope_parameters`. A `head_dim` of None is
    hidden_size / num_attention_heads.

    Raises:
        InputError: a config of another model type, one that gives two values for one of the rope's fields, or something else
            than a table for all of them.
    """

    model_type = "ngpt"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (an annotation would make it a field)

    vocab_size: int = 131072
    hidden_size: int = 4096
    intermediate_size: int = 21504
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int | None = 128
    hidden_act: str = "relu2"
    max_position_embeddings: int = 8192
    initializer_range: float | int = 0.014
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False
    rope_parameters: dict[str, Any] | None = None
    attention_bias: bool = False
    attention_dropout: float | int = 0.0
    mlp_bias: bool = False
    sqk_init_value: float | int = 1.0
    attn_alpha_init_value: float | int = 0.05
    mlp_alpha_init_value: float | int = 0.05
    suv_init_value: float | int = 1.0
    suv_init_scaling: float | int = 1.0
    sz_init_value: float | int = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        """Bring the spellings of the rope's fields to one."""
        top = {name: value for name in ROPE_DEFAULTS if (value := kwargs.pop(name, None)) is not None}
        said = top
        for where, block in (("rope_parameters", self.rope_parameters), ("rope_scaling", kwargs.pop("rope_scaling", None))):
            found = rope_block(where, block)
            for name in sorted(said.keys() & found.keys()):
                if said[name] != found[name]:
                    raise InputError(f"config: {name} is {said[name]!r}, but {where} says {found[name]!r}: keep one")
            said = {**said, **found}
        self.rope_parameters = {"rope_type": "default", **ROPE_DEFAULTS, **said}
        if self.head_dim is None:  # what sizes are allowed, the decoder says
            self.head_dim = max(self.hidden_size // max(self.num_attention_heads, 1), 1)
        super().__post_init__(**kwargs)

    @property
    def rope_theta(self) -> float:
        """The base of the rotation's frequencies."""
        return self._rope["rope_theta"]

    @rope_theta.setter
    def rope_theta(self, value: float) -> None:
        self.rope_parameters = {**self._rope, "rope_theta": value}

    @property
    def partial_rotary_factor(self) -> float:
        """The share of each head's channels that turn."""
        return self._rope["partial_rotary_factor"]

    @partial_rotary_factor.setter
    def partial_rotary_factor(self, value: float) -> None:
        self.rope_parameters = {**self._rope, "partial_rotary_factor": value}

    @property
    def _rope(self) -> dict[str, Any]:
        return {**ROPE_DEFAULTS, **rope_block("rope_parameters", self.rope_parameters)}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A config from the dict of a config.json.

        Raises:
            InputError: it is another model's.
        """
        said = config_dict.get("model_type", cls.model_type)
        if said != cls.model_type:
            raise InputError(f"config: model_type is {said!r}, and the NGPT classes load 'ngpt' only: use AutoModel's classes")
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Its fields, the rope's in both spellings."""
        return {**super().to_dict(), **{name: getattr(self, name) for name in ROPE_DEFAULTS}}


def rope_block(where: str, block: object) -> dict[str, Any]:
    """What a `rope_parameters` or `rope_scaling` says, 4.x's `type` under its name of today.

    Raises:
        InputError: it is no table.
    """
    if not isinstance(block, Mapping | None):
        raise InputError(f"config: {where} is {block!r}: it must be a table or null")
    said = {name: value for name, value in (block or {}).items() if value is not None}
    kind = said.pop("type", None)
    return {"rope_type": kind, **said} if kind is not None else said
