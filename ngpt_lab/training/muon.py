"""Muon for the blocks' matrices and AdamW for the rest, as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn

from ngpt_lab.errors import InputError
from ngpt_lab.training.optimizers import AdamW, OptimizerFactory, parameter_kinds


class Muon(OptimizerFactory):
    """Muon, momentum made orthogonal (https://kellerjordan.github.io/posts/muon), for the matrices of the blocks.

    Embeddings, the head, gains, biases and learned scales have AdamW, whose arguments come first here.

    Args:
        lr: peak learning rate.
        betas: AdamW's decay rates of the two moments.
        eps: added to the root of AdamW's second moment.
        weight_decay: decoupled decay of the matrices; gains, biases and learned scales have none.
        decay_embeddings: whether the input and output embeddings decay too.
        scale_lr: peak learning rate of learned scales; by default `lr`.
        matrix_lr: peak learning rate of the blocks' matrices; by default `lr`.
        momentum: decay rate of the matrices' momentum.
        nesterov: whether to look ahead along it.
        adjust_lr: what `matrix_lr` is multiplied by for each shape: `match_rms_adamw` makes updates of AdamW's usual size, so
            that rates tuned for AdamW serve (arXiv 2502.16982); `original` is Muon's own, for rates about 0.02.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decay_embeddings: bool = True,
        scale_lr: float | None = None,
        matrix_lr: float | None = None,
        momentum: float = 0.95,
        nesterov: bool = True,
        adjust_lr: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
    ) -> None:
        self.rest = AdamW(lr, betas, eps, weight_decay, decay_embeddings, scale_lr)
        self.settings: dict[str, Any] = {
            "lr": lr if matrix_lr is None else matrix_lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "adjust_lr_fn": adjust_lr,
        }

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """See `OptimizerFactory`; the groups are named muon, then as AdamW's.

        Raises:
            InputError: no matrix of a block is trained.
        """
        kinds = parameter_kinds(module)
        trained = [p for p in module.parameters() if p.requires_grad]
        matrices = [p for p in trained if kinds.get(id(p)) == "matrix"]
        if not matrices:
            raise InputError("Muon is for the matrices of blocks, and none is trained: use AdamW")
        group = {"params": matrices, "name": "muon"}
        of_adamw = [p for p in trained if kinds.get(id(p)) != "matrix"]
        return Joined([torch.optim.Muon([group], **self.settings), self.rest.over(module, of_adamw)])


class Joined(torch.optim.Optimizer):
    """Several optimizers as one: their groups and state are its own, and all of them step when it does.

    Args:
        members: the optimizers, of different parameters.
    """

    def __init__(self, members: Iterable[torch.optim.Optimizer]) -> None:
        self.members = list(members)
        super().__init__([group for member in self.members for group in member.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let every member work on this one's groups and state, so that schedules and checkpoints reach them."""
        left = iter(self.param_groups)
        for member in self.members:
            member.state = self.state
            member.param_groups = [next(left) for _ in member.param_groups]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every member, after one call of the closure; its result."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        return loss
