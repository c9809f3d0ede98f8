"""The reference's own numbers, through transformers' Auto classes."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM


@pytest.fixture
def model(folder):
    model, found = AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float64, output_loading_info=True)
    assert not any(found.values())
    return model


@torch.no_grad()
def test_logits_loss_and_stream_are_the_references(folder, model):
    out = model(folder["input_ids"], labels=folder["labels"], output_hidden_states=True)
    folder.assert_close("logits", out.logits)
    folder.assert_close("loss", out.loss)
    for layer, stream in enumerate(out.hidden_states):
        folder.assert_close(f"hidden.{layer}", stream)


def test_gradients_are_the_references(folder, model, tmp_path):
    model(folder["input_ids"], labels=folder["labels"]).loss.backward()
    model.load_state_dict({name: parameter.grad for name, parameter in model.named_parameters()})
    model.save_pretrained(tmp_path)  # under the reference's names
    largest = max(g.abs().max() for name, g in folder.tensors.items() if name.startswith("grad."))
    for name, ours in load_file(tmp_path / "model.safetensors").items():
        theirs = folder[f"grad.{name}"]
        off = (ours - theirs).abs().max() / max(theirs.abs().max(), 1e-3 * largest)
        assert off <= 1e-10, f"gradient of {name} is off by {off:.1e}"


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_nothing_where_there_are_tokens(folder, model, attention):
    model.set_attn_implementation(attention)
    mask = folder["pad.attention_mask"]
    out = model(folder["pad.input_ids"], attention_mask=mask).logits
    folder.assert_close("pad.logits", out[mask.bool()], mask.bool())
    out = model(folder["pad.input_ids"], attention_mask=mask, position_ids=folder["pad.position_ids"]).logits
    folder.assert_close("pad.logits_with_position_ids", out[mask.bool()], mask.bool())
    assert out.isfinite().all()


def test_greedy_ids_are_the_references(folder, model):
    def greedy(prompt, mask):
        return model.generate(prompt, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0)

    prompt = folder["gen.prompt_ids"]
    assert torch.equal(greedy(prompt, torch.ones_like(prompt)), folder["gen.output_ids"])
    assert torch.equal(greedy(folder["pad.input_ids"], folder["pad.attention_mask"]), folder["padgen.output_ids"])


@torch.no_grad()
def test_the_model_without_a_head_is_the_last_of_the_stream(folder):
    model = AutoModel.from_pretrained(folder.path, dtype=torch.float64)
    folder.assert_close(f"hidden.{folder.config['num_hidden_layers']}", model(folder["input_ids"]).last_hidden_state)
