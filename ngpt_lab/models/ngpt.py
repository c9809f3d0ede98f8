"""nGPT, the normalized Transformer (arXiv 2410.01131), in the paper's order. Norm is `unit`, the stream is `x`.

Embeddings and matrices have unit vectors along the residual stream: at the start, and again after every optimizer step.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from ngpt_lab.models.decoder import Decoder
from ngpt_lab.nn.linear import ReadLinear, StreamMatrix, WeightMap, WriteLinear, as_stored, project
from ngpt_lab.nn.norm import NoFinal
from ngpt_lab.nn.plain import Activation, OwnValue, squared_relu
from ngpt_lab.nn.recomputed import recomputed
from ngpt_lab.nn.rotary import HalfRotary
from ngpt_lab.nn.scale import Granularity, Scale, Setting, absolute, resolve
from ngpt_lab.nn.slots import (
    MLP,
    Dims,
    FinalFactory,
    LMHead,
    LMHeadFactory,
    MLPFactory,
    QKNorm,
    QKNormFactory,
    Residual,
    ResidualFactory,
    RotaryFactory,
    ValueFactory,
)
from ngpt_lab.sphere import lerp, unit

# Where alpha and s_z start. ngpt-paper: section 2.6. ngpt-short: a run of few steps, or a narrow stream, cannot grow the logit
# scale far from 1, nor alpha from 0.05, so both start near where long runs end.
PARAMETRISATIONS: dict[str, dict[str, Setting]] = {
    "ngpt-paper": {"alpha": 0.05, "s_z": 1.0},
    "ngpt-short": {"alpha": "1/n_layers", "s_z": "sqrt(d_model)"},
}


class ScaledLogits(LMHead):
    """Logits scaled per token, z = s_z * (E_output x) (eq. 3); the scale is folded into the matrix.

    Args:
        dims: the decoder's sizes.
        embedding: the input embedding's weight (V, C).
        tied: use that weight as the output embedding too.
        init: s_z at the start; by default what `dims.parametrisation` says.
        stored_init: what Adam sees at the start.
        granularity: one s_z a token, one for all, or none learned.
    """

    def __init__(
        self,
        dims: Dims,
        embedding: nn.Parameter,
        tied: bool = False,
        init: Setting | None = None,
        stored_init: Setting = "1/sqrt(d_model)",
        granularity: Granularity = "vector",
    ) -> None:
        super().__init__()
        init = PARAMETRISATIONS[dims.parametrisation]["s_z"] if init is None else init
        self.matrix = ReadLinear(dims.d_model, dims.vocab_size)
        if tied:
            self.matrix.weight = embedding
        self.s_z = Scale(dims.vocab_size, resolve(init, dims), resolve(stored_init, dims), granularity, "vocab")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `LMHead`."""
        return x, self.matrix.used * self.s_z()[:, None]

    def logits(self, x: Tensor) -> Tensor:
        """See `LMHead`."""
        return self.matrix(x, self.s_z())


class SphereResidual(Residual):
    """x <- Norm(x + alpha (Norm(y) - x)) (eq. 10 and 11), alpha the eigen learning rates of the sublayer.

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        path: from x towards Norm(y): lerp, slerp or riemannian of ngpt_lab.sphere.
        sign: absolute or signed alpha, of ngpt_lab.nn.scale.
        eps: added to the length of y before dividing by it.
        init: alpha at the start, a number or one per layer; by default what `dims.parametrisation` says.
        stored_init: what Adam sees at the start.
        granularity: one alpha a channel, one for all, or none learned.
    """

    def __init__(
        self,
        dims: Dims,
        layer: int,
        path: Callable[[Tensor, Tensor, Tensor], Tensor] = lerp,
        sign: Callable[[Tensor], Tensor] = absolute,
        eps: float = 0.0,
        init: Setting | None = None,
        stored_init: Setting = "1/sqrt(d_model)",
        granularity: Granularity = "vector",
    ) -> None:
        super().__init__()
        init = PARAMETRISATIONS[dims.parametrisation]["alpha"] if init is None else init
        self.path, self.sign, self.eps = path, sign, eps
        self.alpha = Scale(dims.d_model, resolve(init, dims, layer), resolve(stored_init, dims, layer), granularity, "stream")

    def read(self, x: Tensor) -> Tensor:
        """The stream as it is: there is no norm before a sublayer."""
        return x

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """See `Residual`."""
        return unit(recomputed(self.moved, x, y))

    def moved(self, x: Tensor, y: Tensor) -> Tensor:
        """x + alpha (Norm(y) - x), not yet of length one; the arguments are those of `write`."""
        return self.path(x, unit(y, eps=self.eps), self.sign(self.alpha()))


class UnitQKNorm(QKNorm):
    """q <- Norm(q) s_qk^2, k <- Norm(k), softmax scale sqrt(d_head) (eq. 15 and 16).

    The paper scales both by s_qk; only the product counts, and with both factors on q grouped keys can be shared.

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
        return unit(q) * per_head(self.s_qk().square(), self.d_head), unit(k)


def per_head(scale: Tensor, d_head: int) -> Tensor:
    """A scale (H * D,) as (H, 1, D), to multiply heads (B, H, T, D); one of a single entry stays as it is."""
    return scale if scale.numel() == 1 else scale.view(-1, 1, d_head)


class ScaledUngatedMLP(MLP):
    """down(activation(s_u sqrt(d_model) up(x))): the baseline's MLP with the paper's scale before the activation (eq. 20).

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        activation: a function of the hidden channels.
        bias: whether both matrices have one.
        init: s_u at the start, a number or one per layer.
        stored_init: what Adam sees at the start.
        granularity: one s_u a hidden channel, one for all, or none learned.
    """

    def __init__(
        self,
        dims: Dims,
        layer: int,
        activation: Activation = squared_relu,
        bias: bool = False,
        init: Setting = 1.0,
        stored_init: Setting = 1.0,
        granularity: Granularity = "vector",
    ) -> None:
        super().__init__()
        self.activation, self.root = activation, dims.d_model**0.5
        self.up = ReadLinear(dims.d_model, dims.d_ff, bias)
        self.down = WriteLinear(dims.d_ff, dims.d_model, bias)
        self.s_u = Scale(dims.d_ff, resolve(init, dims, layer), resolve(stored_init, dims, layer), granularity, "hidden")

    def forward(self, x: Tensor) -> Tensor:
        """See `MLP`."""
        return self.down(self.activation(self.up(x, self.s_u() * self.root)))


class ScaledSwiGLU(MLP):
    """down(u silu(v)), u = s_u (W_u x), v = s_v sqrt(d_model) (W_v x) (eq. 17 to 21): the paper's own MLP.

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        bias: whether all matrices have one.
        init: s_u and s_v at the start, a number or one per layer.
        stored_init: what Adam sees at the start.
        granularity: one scale a hidden channel, one for all, or none learned.
    """

    def __init__(
        self,
        dims: Dims,
        layer: int,
        bias: bool = False,
        init: Setting = 1.0,
        stored_init: Setting = 1.0,
        granularity: Granularity = "vector",
    ) -> None:
        super().__init__()
        self.root = dims.d_model**0.5
        self.up, self.gate = (ReadLinear(dims.d_model, dims.d_ff, bias) for _ in range(2))
        self.down = WriteLinear(dims.d_ff, dims.d_model, bias)
        start = resolve(init, dims, layer), resolve(stored_init, dims, layer)
        self.s_u, self.s_v = (Scale(dims.d_ff, *start, granularity, "hidden") for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """See `MLP`."""
        return self.down(self.up(x, self.s_u()) * F.silu(self.gate(x, self.s_v() * self.root)))


class NGPT(Decoder):
    """nGPT that differs from Nemotron in the sphere alone: same MLP kind, heads and rotary fraction.

    The MLP branch's norm has the 1e-6 of the released Normalized-Nemotron: a squared ReLU can return zero. The arguments are
    those of `Decoder`; `initializer_range` is 1/sqrt(d_model) by default and only sets directions.
    """

    on_sphere = True

    def __init__(
        self,
        dims: Dims,
        *,
        attention_residual: ResidualFactory = SphereResidual,
        mlp_residual: ResidualFactory = lambda dims, layer: SphereResidual(dims, layer, eps=1e-6),
        qk_norm: QKNormFactory = UnitQKNorm,
        value: ValueFactory = OwnValue,
        mlp: MLPFactory = ScaledUngatedMLP,
        rotary: RotaryFactory = lambda dims: HalfRotary(dims, fraction=0.5),
        final: FinalFactory = NoFinal,
        lm_head: LMHeadFactory = ScaledLogits,
        attention: str = "auto",
        attention_bias: bool = False,
        attention_dropout: float = 0.0,
        weights: WeightMap = as_stored,
        initializer_range: float | None = None,
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
            initializer_range=dims.d_model**-0.5 if initializer_range is None else initializer_range,
        )

    def reset(self, part: nn.Module) -> None:
        """See `Decoder`; matrices begin on the sphere."""
        super().reset(part)
        if isinstance(part, StreamMatrix):
            project(part)
