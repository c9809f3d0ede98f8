"""Nemotron (arXiv 2402.16819): pre-norm, LayerNorm1p, squared ReLU, rotation of half of each head, untied, no biases."""

from torch import Tensor

from ngpt_lab.models.decoder import Decoder
from ngpt_lab.nn.linear import WeightMap, as_stored
from ngpt_lab.nn.norm import LayerNorm1p
from ngpt_lab.nn.plain import NoQKNorm, OwnValue, PlainLogits, UngatedMLP
from ngpt_lab.nn.rotary import HalfRotary
from ngpt_lab.nn.slots import (
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


class LayerNormResidual(Residual):
    """x <- x + sublayer(LayerNorm1p(x)).

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        eps: added to the variance.
    """

    def __init__(self, dims: Dims, layer: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = LayerNorm1p(dims, eps)

    def read(self, x: Tensor) -> Tensor:
        """See `Residual`."""
        return self.norm(x)

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """See `Residual`."""
        return x + y


class Nemotron(Decoder):
    """The baseline. The arguments are those of `Decoder`."""

    def __init__(
        self,
        dims: Dims,
        *,
        attention_residual: ResidualFactory = LayerNormResidual,
        mlp_residual: ResidualFactory = LayerNormResidual,
        qk_norm: QKNormFactory = NoQKNorm,
        value: ValueFactory = OwnValue,
        mlp: MLPFactory = UngatedMLP,
        rotary: RotaryFactory = lambda dims: HalfRotary(dims, fraction=0.5),
        final: FinalFactory = LayerNorm1p,
        lm_head: LMHeadFactory = PlainLogits,
        attention: str = "auto",
        attention_bias: bool = False,
        attention_dropout: float = 0.0,
        weights: WeightMap = as_stored,
        initializer_range: float = 0.0134,
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
