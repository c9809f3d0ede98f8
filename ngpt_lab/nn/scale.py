"""Learned scales: stored at one size, used at another (paper section 2.5)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ngpt_lab.errors import InputError
from ngpt_lab.nn.shards import local
from ngpt_lab.nn.slots import Dims

Granularity = Literal["vector", "scalar", "fixed"]
Axis = Literal["stream", "hidden", "heads", "vocab"]
SizeRule = Literal["1/sqrt(d_model)", "sqrt(d_model)", "1/n_layers"]
Setting = float | SizeRule | Sequence[float]


def resolve(setting: Setting, dims: Dims, layer: int = 0) -> float:
    """The number a setting stands for: itself, a rule of the sizes, or its entry for `layer`.

    Raises:
        InputError: a list without exactly one number per layer.
    """
    if isinstance(setting, str):
        return {
            "1/sqrt(d_model)": dims.d_model**-0.5,
            "sqrt(d_model)": dims.d_model**0.5,
            "1/n_layers": 1 / dims.n_layers,
        }[setting]
    if isinstance(setting, Sequence):
        if len(setting) != dims.n_layers:
            raise InputError(f"a scale's setting lists {len(setting)} numbers for {dims.n_layers} layers: give one per layer")
        return float(setting[layer])
    return float(setting)


class Scale(nn.Module):
    """A learned scale of `size` entries that starts at `init`.

    Adam moves every stored entry by about the learning rate whatever its size, so the smaller `stored_init` is, the faster
    the used value moves: `1/sqrt(d_model)` gives a scale the relative speed of the unit-norm matrices.

    Args:
        size: number of entries when `granularity` is `vector`.
        init: the used value at step 0.
        stored_init: the stored value at step 0.
        granularity: `vector` learns every entry, `scalar` one for all, `fixed` none.
        axis: what the entries run along, which decides how they are sharded.
    """

    def __init__(self, size: int, init: float, stored_init: float, granularity: Granularity, axis: Axis) -> None:
        super().__init__()
        self.init, self.stored_init, self.axis = init, stored_init, axis
        self.gain = init / stored_init
        self.stored = nn.Parameter(torch.empty(size if granularity == "vector" else 1), requires_grad=granularity != "fixed")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to step 0."""
        nn.init.constant_(self.stored, self.stored_init)

    def forward(self) -> Tensor:
        """The used value, (size,) or (1,)."""
        return local(self.stored) * self.gain


def absolute(alpha: Tensor) -> Tensor:
    """Eigen learning rates kept non-negative (paper section 2.2.2)."""
    return alpha.abs()


def signed(alpha: Tensor) -> Tensor:
    """Eigen learning rates of any sign (paper appendix A.2)."""
    return alpha
