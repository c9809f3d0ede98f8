"""Our decoders as Hugging Face checkpoints, in transformers itself and back."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import NemotronConfig, NemotronForCausalLM

from ngpt_lab.errors import InputError
from ngpt_lab.interop import export_config, export_weights, import_weights
from ngpt_lab.interop.hf_config import ACTIVATIONS
from ngpt_lab.interop.nvidia import InterleavedRotary
from ngpt_lab.models import GPT, NGPT, Decoder, Dims, Nemotron
from ngpt_lab.models.ablations.scaled_qk import ScaledQK
from ngpt_lab.models.ablations.value_residual import ValueResidual
from ngpt_lab.models.gpt import SwiGLU
from ngpt_lab.models.nemotron import LayerNormResidual
from ngpt_lab.models.ngpt import ScaledLogits, ScaledSwiGLU, ScaledUngatedMLP, SphereResidual, UnitQKNorm
from ngpt_lab.nn.linear import as_unit
from ngpt_lab.nn.norm import LayerNorm1p, RMSNorm
from ngpt_lab.nn.plain import PlainLogits, UngatedMLP
from ngpt_lab.nn.rotary import HalfRotary
from ngpt_lab.nn.scale import signed
from ngpt_lab.sphere import slerp

DIMS = Dims(vocab_size=31, d_model=20, n_layers=3, n_heads=4, n_kv_heads=2, d_head=6, d_ff=36)
TOKENS = torch.randint(0, 31, (2, 11), generator=torch.Generator().manual_seed(0))


def randomised(decoder: Decoder, seed: int = 0) -> Decoder:
    """Every parameter away from its start, so that a wrong or missing one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in decoder.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return decoder


def as_transformers(decoder: Decoder, dtype: torch.dtype) -> NemotronForCausalLM:
    state_dict, config = export_weights(decoder, "hf-nemotron"), export_config(decoder, "hf-nemotron")
    if config["tie_word_embeddings"]:  # a saved checkpoint leaves the repeated tensor out, load_state_dict wants it
        state_dict = {**state_dict, "lm_head.weight": state_dict["model.embed_tokens.weight"]}
    theirs = NemotronForCausalLM(NemotronConfig(**config)).to(dtype)
    theirs.load_state_dict(state_dict, strict=True)
    return theirs.eval()


@st.composite
def nemotrons(draw):
    n_kv_heads, group = draw(st.sampled_from([(1, 4), (2, 2), (3, 1), (1, 1)]))
    dims = Dims(
        vocab_size=draw(st.integers(5, 40)),
        d_model=draw(st.sampled_from([8, 20, 33])),
        n_layers=draw(st.integers(1, 3)),
        n_heads=n_kv_heads * group,
        n_kv_heads=n_kv_heads,
        d_head=draw(st.sampled_from([4, 6, 8, 10])),
        d_ff=draw(st.integers(1, 40)),
    )
    eps = draw(st.sampled_from([1e-5, 1e-3]))
    fraction, theta = draw(st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 1.0])), draw(st.sampled_from([100.0, 1e4, 1e6]))
    activation = draw(st.sampled_from(sorted(ACTIVATIONS)))
    return randomised(
        Nemotron(
            dims,
            attention_residual=partial(LayerNormResidual, eps=eps),
            mlp_residual=partial(LayerNormResidual, eps=eps),
            final=partial(LayerNorm1p, eps=eps),
            mlp=partial(UngatedMLP, activation=ACTIVATIONS[activation], bias=draw(st.booleans())),
            rotary=partial(HalfRotary, fraction=fraction, theta=theta),
            lm_head=partial(PlainLogits, tied=draw(st.booleans())),
            attention_bias=draw(st.booleans()),
        ).double(),
        draw(st.integers(0, 1000)),
    )


@given(nemotrons())
@settings(max_examples=40, deadline=None, derandomize=True)
@torch.no_grad()
def test_transformers_computes_the_same_logits_from_an_exported_nemotron(decoder):
    tokens = TOKENS % decoder.dims.vocab_size
    ours, theirs = decoder(tokens), as_transformers(decoder, torch.float64)(tokens).logits
    assert (ours - theirs).abs().max() <= 1e-10 * ours.abs().max()
    ours, theirs = decoder.float()(tokens), as_transformers(decoder, torch.float32)(tokens).logits
    assert (ours - theirs).abs().max() <= 1e-5 * ours.abs().max()


@torch.no_grad()
def test_a_saved_folder_of_an_exported_tied_nemotron_loads_into_transformers(tmp_path):
    decoder = randomised(Nemotron(DIMS, lm_head=partial(PlainLogits, tied=True)))
    as_transformers(decoder, torch.float32).save_pretrained(tmp_path)
    theirs = NemotronForCausalLM.from_pretrained(tmp_path)
    assert (decoder(TOKENS) - theirs(TOKENS).logits).abs().max() <= 1e-5 * decoder(TOKENS).abs().max()
    back = import_weights("hf-nemotron", theirs.state_dict(), theirs.config.to_dict())
    assert torch.equal(back(TOKENS), decoder(TOKENS))


def test_what_was_imported_comes_back_bit_for_bit(hugging_face_golden):
    golden = hugging_face_golden
    state_dict, config = export_weights(golden.decoder(), golden.kind), export_config(golden.decoder(), golden.kind)
    assert set(state_dict) == set(golden.below("param."))
    for name, tensor in state_dict.items():
        assert tensor.is_contiguous()
        assert torch.equal(tensor, golden[f"param.{name}"].to(golden.dtype))
    rope = golden.config.get("rope_parameters") or golden.config
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == rope["rope_theta"]
    assert config["partial_rotary_factor"] == rope["partial_rotary_factor"]
    shared = set(config) & set(golden.config) - {"architectures", "rope_parameters"}
    assert {k: config[k] for k in shared} == {k: golden.config[k] for k in shared}


@pytest.mark.parametrize(("page", "kind"), [(NGPT, "hf-ngpt"), (Nemotron, "hf-nemotron")])
@torch.no_grad()
def test_the_default_pages_go_out_and_come_back(page, kind):
    decoder = randomised(page(DIMS).double())
    back = import_weights(kind, export_weights(decoder, kind), export_config(decoder, kind))
    assert (back(TOKENS) - decoder(TOKENS)).abs().max() <= 1e-12 * decoder(TOKENS).abs().max()


@torch.no_grad()
def test_scales_of_other_starts_and_granularities_go_out_with_the_same_used_values():
    decoder = randomised(
        NGPT(
            DIMS,
            attention_residual=partial(SphereResidual, init=[0.0, 0.3, 0.5], stored_init=[0.2, 0.3, 0.4]),
            mlp_residual=partial(SphereResidual, init=0.4, eps=1e-6, granularity="scalar"),
            qk_norm=partial(UnitQKNorm, init=2.0, stored_init=0.7, granularity="fixed"),
            mlp=partial(ScaledUngatedMLP, activation=F.silu, bias=True, init=[1.0, 2.0, 3.0], stored_init=0.5),
            lm_head=partial(ScaledLogits, tied=True, init=3.0, stored_init=0.9, granularity="scalar"),
            attention_bias=True,
        ).double()
    )
    state_dict, config = export_weights(decoder, "hf-ngpt"), export_config(decoder, "hf-ngpt")
    assert config["attn_alpha_init_value"] == 0.5
    back = import_weights("hf-ngpt", state_dict, config)
    assert (back(TOKENS) - decoder(TOKENS)).abs().max() <= 1e-12 * decoder(TOKENS).abs().max()


def eps_1e_6(dims, layer, **settings):
    return SphereResidual(dims, layer, eps=1e-6, **settings)


REFUSED = [
    ("hf-ngpt", GPT(DIMS), "attention_residual is RMSNormResidual"),
    ("hf-ngpt", Nemotron(DIMS), "attention_residual is LayerNormResidual"),
    ("hf-ngpt", NGPT(DIMS, mlp_residual=SphereResidual), "mlp_residual.eps is 0.0"),
    ("hf-ngpt", NGPT(DIMS, attention_residual=eps_1e_6), "attention_residual.eps is 1e-06"),
    ("hf-ngpt", NGPT(DIMS, attention_residual=partial(SphereResidual, path=slerp)), "attention_residual.path is slerp"),
    ("hf-ngpt", NGPT(DIMS, mlp_residual=partial(eps_1e_6, sign=signed)), "mlp_residual.sign is signed"),
    ("hf-ngpt", NGPT(DIMS, weights=as_unit), "is as_unit"),
    ("hf-ngpt", NGPT(DIMS, mlp=ScaledSwiGLU), "mlp is ScaledSwiGLU"),
    ("hf-ngpt", NGPT(DIMS, qk_norm=ScaledQK), "qk_norm is ScaledQK"),
    ("hf-ngpt", NGPT(DIMS, value=ValueResidual), "value is ValueResidual"),
    ("hf-ngpt", NGPT(DIMS, rotary=InterleavedRotary), "rotary is InterleavedRotary"),
    ("hf-ngpt", NGPT(DIMS, final=LayerNorm1p), "final is LayerNorm1p"),
    ("hf-ngpt", NGPT(DIMS, lm_head=PlainLogits), "lm_head is PlainLogits"),
    ("hf-nemotron", NGPT(DIMS), "attention_residual is SphereResidual"),
    ("hf-nemotron", Nemotron(DIMS, mlp=SwiGLU), "mlp is SwiGLU"),
    ("hf-nemotron", Nemotron(DIMS, final=RMSNorm), "final is RMSNorm"),
    ("hf-nemotron", Nemotron(DIMS, final=partial(LayerNorm1p, eps=1e-3)), "norm.eps differs"),
    ("hf-nemotron", Nemotron(DIMS, qk_norm=UnitQKNorm), "qk_norm is UnitQKNorm"),
    ("hf-nemotron", Nemotron(DIMS, mlp=partial(UngatedMLP, activation=torch.sin)), "mlp.activation is"),
    ("hf-nemotron", Nemotron(DIMS, weights=as_unit, lm_head=partial(PlainLogits, tied=True)), "is as_unit"),
    ("nvidia-ngpt", NGPT(DIMS), "kind is 'nvidia-ngpt'"),
]


@pytest.mark.parametrize(("kind", "decoder", "said"), REFUSED, ids=[f"{kind}: {said}" for kind, _, said in REFUSED])
def test_what_the_target_cannot_hold_is_refused_by_name(kind, decoder, said):
    with pytest.raises(InputError) as refused:
        export_weights(decoder, kind)
    assert said in str(refused.value)
