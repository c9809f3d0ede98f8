"""Other people's models as arms of the step benchmark, each where its library is installed, at the sizes of one of ours."""

import copy
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ngpt_lab.errors import InputError
from ngpt_lab.interop import export_config, export_weights, import_weights
from ngpt_lab.models import NGPT, Decoder


class OtherModel(nn.Module):
    """Somebody else's model, called as a decoder is: tokens (B, T) and the ids that follow (B, T), to their mean loss.

    Args:
        model: theirs.
        like: a decoder of ours with the same matrices and operations, on the meta device.
        loss: how their library computes the loss.
        project: what their library does after an optimizer step.
    """

    def __init__(
        self,
        model: nn.Module,
        like: Decoder,
        loss: Callable[[Any, Tensor, Tensor], Tensor],
        project: Callable[[Any], None] = lambda model: None,
    ) -> None:
        super().__init__()
        self.model, self._loss, self._project = model, loss, project
        object.__setattr__(self, "like", like)  # no part of the model: its parameters are not learned

    like: Decoder

    def project(self) -> None:
        """What is done after an optimizer step."""
        self._project(self.model)

    def forward(self, tokens: Tensor, targets: Tensor, *, documents: Tensor | None = None) -> Tensor:
        """The mean cross-entropy in nats.

        Raises:
            InputError: documents in the windows: their attention does not keep them apart.
        """
        if documents is not None:
            raise InputError("other implementations do not tell documents apart: measure with windows of one stream")
        return self._loss(self.model, tokens, targets)


def transformers_model(decoder: Decoder, attention: str) -> OtherModel:
    """The Hugging Face class of a decoder's architecture, with its weights: transformers' Nemotron, or our own of nGPT."""
    from transformers import NemotronConfig, NemotronForCausalLM

    from ngpt_lab.hf import NGPTConfig, NGPTForCausalLM

    theirs: tuple[str, Any, Any] = ("hf-nemotron", NemotronConfig, NemotronForCausalLM)
    kind, config, cls = ("hf-ngpt", NGPTConfig, NGPTForCausalLM) if isinstance(decoder, NGPT) else theirs
    told = {**export_config(decoder, kind), "use_cache": False, "attn_implementation": attention}
    model = cls(config(**told))
    model.load_state_dict(export_weights(decoder, kind))
    return OtherModel(model.train(), on_meta(decoder), transformers_loss)


def transformers_loss(model: Any, tokens: Tensor, targets: Tensor) -> Tensor:
    """As transformers computes it from labels that are shifted already."""
    return model(input_ids=tokens, labels=targets, shift_labels=targets, use_cache=False).loss


def small_library(decoder: Decoder, normalization: str) -> OtherModel:
    """The small library's nGPT at the decoder's sizes; its SwiGLU has as many hidden channels as give equal parameters.

    Its value residual is off, since ours has none.

    Raises:
        InputError: grouped keys, which it does not have.
    """
    library = import_module("nGPT_pytorch.nGPT")
    give_hashes(library)

    dims = decoder.dims
    if dims.n_kv_heads != dims.n_heads:
        raise InputError(f"nGPT-pytorch has no grouped keys: set dims.n_kv_heads to dims.n_heads, {dims.n_heads}")
    entries = sum(p.numel() for p in decoder.blocks[0].get_submodule("mlp").parameters() if p.ndim == 2)
    d_ff = round(entries / (3 * dims.d_model))
    config: dict[str, Any] = {
        "num_tokens": dims.vocab_size,
        "dim": dims.d_model,
        "depth": dims.n_layers,
        "heads": dims.n_heads,
        "dim_head": dims.d_head,
        "ff_expand_factor": 1.5 * (d_ff + 0.5) / dims.d_model,  # it takes int(dim * factor * 2 / 3)
        "manual_norm_weights": normalization == "manual",
        "add_value_residual": False,
    }
    model: nn.Module = library.nGPT(**config, ce_ignore_index=-100)
    like = import_weights("lucidrains-ngpt", model.state_dict(), config)
    project = {"project": library.nGPT.norm_weights_} if normalization == "manual" else {}
    return OtherModel(model, on_meta(like), small_library_loss, **project)


def give_hashes(library: ModuleType) -> None:
    """Let torch walk the library's modules: 0.2.16 says when two are equal, which takes their hash, and torch keeps sets."""
    for kind in vars(library).values():
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__hash__ is None:
            kind.__hash__ = nn.Module.__hash__


def small_library_loss(model: Any, tokens: Tensor, targets: Tensor) -> Tensor:
    """Its own loss, of a row one token longer than its windows."""
    return model(torch.cat((tokens[:, :1], targets), dim=1), return_loss=True)


def on_meta(decoder: Decoder) -> Decoder:
    """A decoder of the same shape that takes no memory."""
    return copy.deepcopy(decoder).to("meta")


# What makes each from a decoder of ours, and what installs its library.
OTHERS: dict[str, tuple[Callable[[Decoder, str], OtherModel], str]] = {
    "transformers:eager": (transformers_model, "ngpt-lab[hf]"),
    "transformers:sdpa": (transformers_model, "ngpt-lab[hf]"),
    "nGPT-pytorch:manual": (small_library, "nGPT-pytorch"),
    "nGPT-pytorch:parametrized": (small_library, "nGPT-pytorch"),
}


def other_model(name: str, decoder: Decoder) -> OtherModel:
    """The implementation of a name at a decoder's sizes, with its weights where it can hold them.

    Raises:
        InputError: there is none of that name, its library is not installed, or it cannot have these sizes.
    """
    if name not in OTHERS:
        raise InputError(f"the implementation is {name!r}: choose one of {', '.join(OTHERS)}")
    make, package = OTHERS[name]
    try:
        return make(decoder, name.partition(":")[2])
    except ImportError as error:
        raise InputError(f"the arm's implementation {name} is not installed ({error}): pip install '{package}'") from error
