"""Optimizers as objects in a slot: each makes one torch optimizer for a module, parameter groups and all."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import nn

from ngpt_lab.nn.linear import stream_matrices
from ngpt_lab.nn.scale import Scale


class OptimizerFactory(ABC):
    """Makes the optimizer of a module."""

    @abstractmethod
    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """One optimizer over every learned parameter of `module`."""


class AdamW(OptimizerFactory):
    """AdamW (arXiv 1711.05101), fused, with decay on matrices alone.

    Args:
        lr: peak learning rate.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay of the matrices; gains, biases and learned scales have none.
        decay_embeddings: whether the input and output embeddings decay too.
        scale_lr: peak learning rate of learned scales; by default `lr`.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decay_embeddings: bool = True,
        scale_lr: float | None = None,
    ) -> None:
        self.lr, self.betas, self.eps = lr, betas, eps
        self.weight_decay, self.decay_embeddings, self.scale_lr = weight_decay, decay_embeddings, scale_lr

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """See `OptimizerFactory`; the groups are named decayed, plain and scales."""
        return self.over(module, module.parameters())

    def over(self, module: nn.Module, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """The optimizer of some parameters of `module`."""
        kind = parameter_kinds(module)
        decayed = {"matrix", "embedding"} if self.decay_embeddings else {"matrix"}
        groups: dict[str, list[nn.Parameter]] = {"decayed": [], "plain": [], "scales": []}
        for parameter in parameters:
            if parameter.requires_grad:
                of = kind.get(id(parameter), "vector")
                groups["scales" if of == "scale" else "decayed" if of in decayed else "plain"].append(parameter)
        settings = {
            "decayed": {"weight_decay": self.weight_decay},
            "plain": {"weight_decay": 0.0},
            "scales": {"weight_decay": 0.0, "lr": self.lr if self.scale_lr is None else self.scale_lr},
        }
        return torch.optim.AdamW(
            [{"params": members, "name": name, **settings[name]} for name, members in groups.items() if members],
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            fused=True,
        )


def parameter_kinds(module: nn.Module) -> dict[int, str]:
    """The id of each matrix, embedding and learned scale of `module`, to which of them it is."""
    kinds = {}
    for name, matrix in stream_matrices(module):
        kinds[id(matrix.weight)] = "embedding" if name.split(".")[-1] == "embedding" or "lm_head" in name else "matrix"
    for part in module.modules():
        if isinstance(part, Scale):
            kinds[id(part.stored)] = "scale"
    return kinds
