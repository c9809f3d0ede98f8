"""What a compiled forward pass keeps for its backward pass, as torch.compile divides the two; no kernel is made."""

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from ngpt_lab.plan.rehearsal import Step, become_fake, fake_batch, forward
from ngpt_lab.training.cli import DryCLI


def kept_when_compiled(cli: DryCLI, step: Step) -> int:
    """Bytes that a compiled forward pass of a micro-batch keeps, weights apart.

    Each block keeps the same as the next, or, where every n-th is checkpointed, as the n-th after it: a few blocks are traced,
    and n more, and the rest counted on.

    Args:
        cli: the data and the model, which is on the meta device and stays as it is.
        step: what is rehearsed.
    """
    layers = cli.model.backbone.dims.n_layers
    period = getattr(cli.model.backbone.carry_out, "every", 1)
    few = layers % period or min(period, layers)
    kept = _kept(cli, few, step)
    return kept if layers == few else kept + (layers - few) // period * (_kept(cli, few + period, step) - kept)


def _kept(cli: DryCLI, layers: int, step: Step) -> int:
    from torch._inductor.compile_fx import compile_fx  # takes seconds to import

    module = deepcopy(cli.model)
    module.backbone.blocks = module.backbone.blocks[:layers]
    step.precision.convert_module(module)
    torch._dynamo.reset()
    with FakeTensorMode():
        become_fake(module, step.gpu)
        module.backbone.compile(fullgraph=True, backend=partial(compile_fx, inner_compile=_as_it_is))
        there = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in there:
                kept[storage._cdata] = storage.nbytes()
            return tensor

        tokens = fake_batch(cli, step)
        there |= {tensor.untyped_storage()._cdata for tensor in tokens if tensor is not None}
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = forward(module.backbone, tokens, step)
        torch._dynamo.reset()  # what it remembers of fake tensors is no good for real ones
    del loss  # holds what was kept, which until here keeps storages from taking each other's places
    return sum(kept.values())


def _as_it_is(graph: nn.Module, *_: Any, **__: Any) -> Any:
    """In place of the code generator: the graph of one pass, after all that decides what passes from one to the other."""
    return make_boxed_func(graph)
