"""GPT as nGPT's paper compares against (arXiv 2410.01131, appendix A.5): pre-norm RMSNorm, SwiGLU, full rotation, untied."""

from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.models.decoder import Decoder
from ngpt_lab.nn.linear import ReadLinear, WeightMap, WriteLinear, as_stored
from ngpt_lab.nn.norm import RMSNorm
from ngpt_lab.nn.plain import NoQKNorm, OwnValue, PlainLogits
from ngpt_lab.nn.rotary import HalfRotary
from ngpt_lab.nn.slots import (
    MLP,
    Dims,
    FinalFactory,
    LMHeadFactory,
    MLPFactory,
    QKNormFactory,
    Residual,
    ResidualFactory,
    RotaryFactory,
    ValueFactory,
)


class RMSNormResidual(Residual):
    """x <- x + sublayer(RMSNorm(x)).

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        eps: added to the mean square.
    """

    def __init__(self, dims: Dims, layer: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = RMSNorm(dims, eps)

    def read(self, x: Tensor) -> Tensor:
        """See `Residual`."""
        return self.norm(x)

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """See `Residual`."""
        return x + y


class SwiGLU(MLP):
    """down(up(x) silu(gate(x))) (arXiv 2002.05202).

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        bias: whether all matrices have one.
    """

    def __init__(self, dims: Dims, layer: int, bias: bool = False) -> None:
        super().__init__()
        self.up, self.gate = (ReadLinear(dims.d_model, dims.d_ff, bias) for _ in range(2))
        self.down = WriteLinear(dims.d_ff, dims.d_model, bias)

    def forward(self, x: Tensor) -> Tensor:
        """See `MLP`."""
        return self.down(self.up(x) * F.silu(self.gate(x)))


class GPT(Decoder):
    """The partner of nGPT in the paper's own shape. The arguments are those of `Decoder`."""

    def __init__(
        self,
        dims: Dims,
        *,
        attention_residual: ResidualFactory = RMSNormResidual,
        mlp_residual: ResidualFactory = RMSNormResidual,
        qk_norm: QKNormFactory = NoQKNorm,
        value: ValueFactory = OwnValue,
        mlp: MLPFactory = SwiGLU,
        rotary: RotaryFactory = HalfRotary,
        final: FinalFactory = RMSNorm,
        lm_head: LMHeadFactory = PlainLogits,
        attention: str = "auto",
        attention_bias: bool = False,
        attention_dropout: float = 0.0,
        weights: WeightMap = as_stored,
        initializer_range: float = 0.02,
    ) -> None:
        super().__init__(
            dims,
            attention_residual=attention_residual,
            mlp_residual=mlp_residual,
            qk_norm=qk_norm,
            value=value,
            mlp=mlp,
            rotary=rotary,
            final=final,
            lm_head=lm_head,
            attention=attention,
            attention_bias=attention_bias,
            attention_dropout=attention_dropout,
            weights=weights,
            initializer_range=initializer_range,
        )
