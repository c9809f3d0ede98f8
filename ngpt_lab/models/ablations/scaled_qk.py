"""nGPT without QK norm (paper Table 6): s_qk and the softmax scale stay."""

from torch import Tensor

from ngpt_lab.models.ngpt import per_head
from ngpt_lab.nn.scale import Granularity, Scale, Setting, resolve
from ngpt_lab.nn.slots import Dims, QKNorm


class ScaledQK(QKNorm):
    """q <- q s_qk^2, k <- k, softmax scale sqrt(d_head).

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        init: s_qk at the start, a number or one per layer.
        stored_init: what Adam sees at the start.
        granularity: one s_qk a channel of each head, one for all, or none learned.
    """

    def __init__(
        self,
        dims: Dims,
        layer: int,
        init: Setting = 1.0,
        stored_init: Setting = "1/sqrt(d_model)",
        granularity: Granularity = "vector",
    ) -> None:
        super().__init__()
        self.softmax_scale, self.d_head = dims.d_head**0.5, dims.d_head
        size = dims.n_heads * dims.d_head
        self.s_qk = Scale(size, resolve(init, dims, layer), resolve(stored_init, dims, layer), granularity, "heads")

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """See `QKNorm`."""
        return q * per_head(self.s_qk().square(), self.d_head), k
