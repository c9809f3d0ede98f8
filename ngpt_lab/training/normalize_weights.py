"""The callback that keeps matrices on the sphere."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ngpt_lab.nn.linear import StreamMatrix, stream_matrices
from ngpt_lab.nn.shards import local
from ngpt_lab.sphere import length, widen
from ngpt_lab.training.parallel.pieces import as_piece, assembled, groups, lengths

Lengths = Literal["unit", "first"]


class NormalizeWeights(Callback):
    """Gives every vector of every stream matrix its length back after the optimizer's steps (arXiv 2410.01131, section 2.6).

    It runs in the optimizer's own step hook: once a real step whatever the accumulation, and before any checkpoint or
    validation sees the weights. A run that starts anew is normalised before its first step; one that resumes is left alone,
    since normalising twice changes bits.

    Args:
        every_n_steps: how often, in optimizer steps; 0 switches it off on purpose; null is for backbones that need none.
        lengths: `unit` for length one, `first` for each vector's length at the start of the run.
    """

    def __init__(self, every_n_steps: int | None = 1, lengths: Lengths = "unit") -> None:
        self.every_n_steps, self.lengths = every_n_steps, lengths
        self._first: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Normalise a fresh run and hook the optimizers."""
        if not self.every_n_steps:
            return
        self.keep_first(pl_module)
        if trainer.ckpt_path is None:
            self.normalize(pl_module)

        for optimizer in trainer.optimizers:
            # The trainer counts a step only after the optimizer's hooks.
            self.attach(optimizer, pl_module, lambda: trainer.global_step + 1)

    def attach(self, optimizer: torch.optim.Optimizer, module: torch.nn.Module, step: Callable[[], int]) -> None:
        """Normalise `module` after those steps of `optimizer` whose number, which `step` tells, is a multiple."""
        self.keep_first(module)

        def after_step(*_: Any) -> None:
            # Where no parameter has a gradient the step was left out: normalising once more would change bits.
            moved = any(p.grad is not None for group in optimizer.param_groups for p in group["params"])
            if moved and self.every_n_steps and step() % self.every_n_steps == 0:
                self.normalize(module)

        optimizer.register_step_post_hook(after_step)

    def keep_first(self, module: torch.nn.Module) -> None:
        """Remember the lengths to keep, where they count; those of a checkpoint, which are whole, as this process's pieces."""
        if self.lengths == "first" and not self._first:
            self._first = {
                name: assembled(norms, matrix.weight, but=matrix.norm_dim) for name, matrix, norms in measured(module)
            }
        for name, matrix in stream_matrices(module):
            if name in self._first:
                piece = as_piece(self._first[name], matrix.weight, but=matrix.norm_dim)
                self._first[name] = piece.to(matrix.weight.device)

    @torch.no_grad()
    def normalize(self, module: torch.nn.Module) -> None:
        """Bring every stream matrix of `module` to its lengths, in place."""
        for name, matrix, norms in measured(module):
            weight = local(matrix.weight)
            if self.lengths == "first":
                norms = norms / local(self._first[name])
            torch.mul(weight, norms.reciprocal_(), out=weight)  # in the norms' precision, with no copy between

    def state_dict(self) -> dict[str, Any]:
        """The first lengths, where they count."""
        return dict(self._first)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self._first = dict(state_dict)


def measured(module: torch.nn.Module) -> Iterator[tuple[str, StreamMatrix, Tensor]]:
    """Every stream matrix of a module, with the lengths of its vectors, or of those that this process has part of."""
    named = list(stream_matrices(module))
    shared = [(name, matrix) for name, matrix in named if groups(matrix.weight, matrix.norm_dim)]
    norms = lengths([(matrix.weight, matrix.norm_dim) for _, matrix in shared])
    known = {name: norm for (name, _), norm in zip(shared, norms, strict=True)}
    for name, matrix in named:
        # One matrix after another where nothing is sent: its entries are still in the cache when they are divided.
        yield name, matrix, known[name] if name in known else length(widen(local(matrix.weight.detach())), matrix.norm_dim)
