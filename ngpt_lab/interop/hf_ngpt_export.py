"""Our nGPT as Hugging Face's NGPTForCausalLM: the other direction of `hf_ngpt`."""

from typing import NamedTuple

from torch import Tensor

from ngpt_lab.interop.hf_ngpt import COLUMNS, MLP_EPS, names
from ngpt_lab.interop.target import Exported, Target
from ngpt_lab.models.decoder import Decoder
from ngpt_lab.models.ngpt import ScaledLogits, ScaledUngatedMLP, SphereResidual, UnitQKNorm
from ngpt_lab.nn.norm import NoFinal
from ngpt_lab.nn.scale import Scale, absolute
from ngpt_lab.sphere import lerp


def export(target: Target) -> Exported:
    """The decoder as an NGPTForCausalLM."""
    attention = _residuals(target, "attention_residual", 0.0)
    mlp = _residuals(target, "mlp_residual", MLP_EPS)
    qk_norms, mlps = target.parts("attention.qk_norm", UnitQKNorm), target.parts("mlp", ScaledUngatedMLP)
    head = target.part("lm_head", ScaledLogits)
    target.part("final", NoFinal)
    stored = head.s_z.stored_init
    scales = {
        "sqk": Starts.of([part.s_qk for part in qk_norms], stored),
        "attn_alpha": Starts.of([part.alpha for part in attention], stored),
        "mlp_alpha": Starts.of([part.alpha for part in mlp], stored),
        "suv": Starts.of([part.s_u for part in mlps], mlps[0].s_u.stored_init),
        "sz": Starts.of([head.s_z], stored),
    }
    config = {
        "model_type": "ngpt",
        "architectures": ["NGPTForCausalLM"],
        **target.shared_config(),
        "hidden_act": target.activation(part.activation for part in mlps),
        "mlp_bias": target.agreed("mlp.bias", [part.up.bias is not None for part in mlps]),
        "tie_word_embeddings": target.tied(head.matrix),
        "initializer_range": stored,
        "suv_init_scaling": scales["suv"].stored_init,
        **{f"{name}_init_value": starts.init for name, starts in scales.items()},
    }
    return Exported(_tensors(target.decoder, list(scales.values())), config)


def _residuals(target: Target, slot: str, eps: float) -> list[SphereResidual]:
    residuals = target.parts(slot, SphereResidual)
    for residual in residuals:
        target.must(f"{slot}.path", residual.path, lerp)
        target.must(f"{slot}.sign", residual.sign, absolute)
        target.must(f"{slot}.eps", residual.eps, eps)
    return residuals


class Starts(NamedTuple):
    """The one start a config holds for the scales of all layers.

    Args:
        scales: one per layer.
        init: the used value at step 0; where layers differ, the one farthest from zero.
        stored_init: the stored value at step 0.
    """

    scales: list[Scale]
    init: float
    stored_init: float

    @classmethod
    def of(cls, scales: list[Scale], stored_init: float) -> "Starts":
        """What the config says of `scales`."""
        return cls(scales, max((scale.init for scale in scales), key=abs), stored_init)

    def stored(self, scale: Scale, size: int) -> Tensor:
        """What to store (size,) for the target to use the values that `scale` does; the same bits where the starts agree."""
        gain = self.init / self.stored_init
        factor = 1.0 if scale.gain == gain else scale.gain / gain
        return (scale.stored.detach() * factor).expand(size).contiguous()


def _tensors(decoder: Decoder, starts: list[Starts]) -> dict[str, Tensor]:
    dims, theirs = decoder.dims, names(decoder)
    sizes = {"stream": dims.d_model, "hidden": dims.d_ff, "heads": dims.n_heads * dims.d_head, "vocab": dims.vocab_size}
    stored = {id(scale.stored): start.stored(scale, sizes[scale.axis]) for start in starts for scale in start.scales}
    tensors = {theirs[name]: stored.get(id(p), p.detach()) for name, p in decoder.named_parameters()}
    return {name: tensor[:, None] if name.endswith(COLUMNS) else tensor for name, tensor in tensors.items()}
