"""Value residual: later layers attend to the mean of their own and the first layer's values (arXiv 2410.17897)."""

from torch import Tensor

from ngpt_lab.nn.slots import Dims, Value


class ValueResidual(Value):
    """v <- (v + first layer's v) / 2; in the first layer that is v itself."""

    def __init__(self, dims: Dims, layer: int) -> None:
        super().__init__()

    def forward(self, v: Tensor, first: Tensor) -> Tensor:
        """See `Value`."""
        return (v + first) / 2
