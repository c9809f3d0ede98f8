"""Decoders from imported weights compute what the references computed, in float64 to 1e-10 and in float32 to 1e-5."""

from collections import defaultdict
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.interop import import_weights
from ngpt_lab.nn.attend import attention_named
from ngpt_lab.nn.attention import GrowingCache
from ngpt_lab.nn.linear import project


def test_all_17_files_are_here(request):
    assert len(list((request.path.parents[1] / "golden").glob("*.safetensors"))) == 17


def test_the_stream_the_logits_and_the_loss_are_the_reference_s(golden):
    decoder, tokens = golden.decoder(), golden["input_ids"]
    stream = decoder.stream(tokens)
    assert f"hidden.{len(stream)}" not in golden
    for i, x in enumerate(stream):
        golden.assert_close(f"hidden.{i}", x)
    if "final_norm" in golden:
        golden.assert_close("final_norm", decoder.final(stream[-1]))
    golden.assert_close("logits", decoder(tokens))
    golden.assert_close("loss", decoder(tokens, golden.targets))


def test_every_sublayer_s_output_is_the_reference_s(golden):
    decoder, seen = golden.decoder(), {}
    for i, block in enumerate(decoder.blocks):
        block.attention.out.register_forward_hook(partial(_keep_output, seen, f"branch.{i}.attn"))
        block.mlp.register_forward_hook(partial(_keep_output, seen, f"branch.{i}.mlp"))
        block.mlp.register_forward_pre_hook(partial(_keep_input, seen, f"subhidden.{2 * i + 1}"))
    decoder(golden["input_ids"])
    assert set(golden.below("branch.")) <= {name.removeprefix("branch.") for name in seen}
    for name, x in seen.items():
        if name in golden:
            golden.assert_close(name, x)


def _keep_output(seen, name, _module, _args, output):
    seen[name] = output


def _keep_input(seen, name, _module, args):
    seen[name] = args[0]


def test_every_gradient_is_the_reference_s(golden):
    decoder, theirs = golden.decoder(), golden.below("grad.")
    decoder(golden["input_ids"], golden.targets).backward()
    learned = {golden.names.theirs[name]: p.grad for name, p in decoder.named_parameters() if p.requires_grad}
    assert set(learned) == set(theirs)
    floor = 1e-3 * max(float(t.abs().max()) for t in theirs.values())
    for name, gradient in learned.items():
        golden.assert_close(f"grad.{name}", gradient, floor)


def test_three_steps_of_adamw_and_projection_end_where_the_reference_s_do(trained_golden):
    golden = trained_golden
    decoder, losses = golden.decoder(), []
    learned = [p for p in decoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    for tokens in golden["train.input_ids"]:
        following = F.pad(tokens[:, 1:], (0, 1), value=-100)
        optimizer.zero_grad()
        losses.append(decoder(tokens, following))
        losses[-1].backward()
        optimizer.step()
        project(decoder)
    golden.assert_close("adamw3.losses", torch.stack(losses))
    trained = {f"adamw3.{golden.names.theirs[n]}": p for n, p in decoder.named_parameters() if p.requires_grad}
    assert set(trained) == {f"adamw3.{name}" for name in golden.below("adamw3.")} - {"adamw3.losses"}
    for name, parameter in trained.items():
        golden.assert_close(name, parameter)


def test_padded_rows_give_the_reference_s_logits_with_and_without_their_positions(hugging_face_golden):
    golden = hugging_face_golden
    decoder, tokens, mask = golden.decoder(), golden["pad.input_ids"], golden["pad.attention_mask"]
    seen = mask.bool()
    given = {"pad.logits": None, "pad.logits_with_position_ids": golden["pad.position_ids"]}
    for name, positions in given.items():
        logits = decoder(tokens, positions=positions, attention_mask=mask)
        assert torch.isfinite(logits).all()
        # Where the mask is 0 an implementation may put anything.
        golden.assert_close(name, torch.where(seen[..., None], logits.double(), golden[name]))


@torch.no_grad()
def _generate(decoder, prompt: Tensor, mask: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Greedy ids (B, T + n) and the logits each new one was chosen from (B, n, V); positions are counted by the mask."""
    cache, ids, new, chosen_from = GrowingCache(), prompt, prompt, []
    for _ in range(n):
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -new.shape[1] :]
        chosen_from.append(decoder(new, positions=positions, attention_mask=mask, cache=cache)[:, -1])
        new = chosen_from[-1].argmax(dim=-1, keepdim=True)
        ids, mask = torch.cat((ids, new), dim=1), F.pad(mask, (0, 1), value=1)
    return ids, torch.stack(chosen_from, dim=1)


def test_cached_generation_chooses_the_reference_s_tokens(hugging_face_golden):
    golden = hugging_face_golden
    prompt, n = golden["gen.prompt_ids"], golden["gen.step_logits"].shape[1]
    ids, logits = _generate(golden.decoder(), prompt, torch.ones_like(prompt), n)
    assert torch.equal(ids, golden["gen.output_ids"])
    golden.assert_close("gen.step_logits", logits)


def test_left_padded_generation_chooses_the_reference_s_tokens(hugging_face_golden):
    golden = hugging_face_golden
    n = golden["padgen.step_logits"].shape[1]
    ids, logits = _generate(golden.decoder(), golden["pad.input_ids"], golden["pad.attention_mask"], n)
    assert torch.equal(ids, golden["padgen.output_ids"])
    golden.assert_close("padgen.step_logits", logits)


def test_a_cache_without_positions_or_mask_continues_where_it_stands(golden):
    decoder, tokens = golden.decoder(), golden["input_ids"]
    cache = GrowingCache()
    pieces = [decoder(piece, cache=cache) for piece in tokens.split([3, 1, tokens.shape[1] - 4], dim=1)]
    golden.assert_close("logits", torch.cat(pieces, dim=1))


def test_eager_attention_computes_the_same(golden):
    decoder = golden.decoder()
    decoder.attend = attention_named("eager")
    golden.assert_close("logits", decoder(golden["input_ids"]))
    if "pad.logits" in golden:
        seen = golden["pad.attention_mask"].bool()[..., None]
        logits = decoder(golden["pad.input_ids"], attention_mask=golden["pad.attention_mask"])
        golden.assert_close("pad.logits", torch.where(seen, logits.double(), golden["pad.logits"]))


# On a CPU it runs without gradients only, uncompiled, and says so.
@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("stem", ["r1_ngpt_hf_b_gqa_partial", "r3_nemotron_lm_c_mqa_hd12", "r4_lucid_b_valueres"])
@torch.no_grad()
def test_flex_attention_computes_the_same(golden_named, stem):
    golden = golden_named(stem)
    decoder = golden.decoder()
    decoder.attend = attention_named("flex")
    golden.assert_close("logits", decoder(golden["input_ids"]))
    if "pad.logits" in golden:
        seen = golden["pad.attention_mask"].bool()[..., None]
        logits = decoder(golden["pad.input_ids"], attention_mask=golden["pad.attention_mask"])
        golden.assert_close("pad.logits", torch.where(seen, logits, golden["pad.logits"]))


def test_a_tensor_s_own_dtype_is_kept(golden_float64):
    golden = golden_float64
    weights = golden.below("param.")
    mixed = {
        name: t.to(torch.bfloat16 if "alpha" not in name and t.shape[-1] > 1 else torch.float32) for name, t in weights.items()
    }
    decoder = import_weights(golden.kind, mixed, golden.config, rope=golden.rope)
    dtypes = defaultdict(set)
    for name, p in decoder.named_parameters():
        dtypes[p.dtype].add(golden.names.theirs[name])
    assert dtypes == {dtype: {n for n, t in mixed.items() if t.dtype == dtype} for dtype in {t.dtype for t in mixed.values()}}
    decoder(golden["input_ids"], golden.targets).backward()
    assert all(torch.isfinite(p.grad).all() for p in decoder.parameters() if p.requires_grad)
