"""The generation benchmark: both implementations have the same weights and do the same work, and take turns."""

import json
import sys

import pytest
import torch

from ngpt_lab.bench import generate as bench
from ngpt_lab.bench.generate import Work, build, measure, time_once, time_rounds
from ngpt_lab.cli import main
from ngpt_lab.errors import InputError
from ngpt_lab.models import Dims

CPU = torch.device("cpu")
ARMS = ["ngpt", "nemotron", "hf-ngpt", "hf-nemotron"]
DIMS = Dims(vocab_size=61, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40)


@pytest.fixture(scope="module")
def arms():
    return build(DIMS, torch.float32, CPU)


def test_the_implementations_of_a_model_compute_the_same(arms):
    tokens = torch.randint(DIMS.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    decoders, theirs = ([arms[f"{prefix}{model}"].args[0] for model in ("ngpt", "nemotron")] for prefix in ("", "hf-"))
    assert [type(model).__name__ for model in theirs] == ["NGPTForCausalLM", "NemotronForCausalLM"]
    with torch.no_grad():
        for ours, other in zip(decoders, theirs, strict=True):
            torch.testing.assert_close(ours(tokens), other(tokens).logits)


def test_all_arms_continue_greedily_and_never_end(arms):
    tokens = torch.randint(DIMS.vocab_size, (3, 5), generator=torch.Generator().manual_seed(1))
    ids = {name: time_once(arm, tokens, 40)[2] for name, arm in arms.items()}
    assert {name: tuple(given.shape) for name, given in ids.items()} == dict.fromkeys(ARMS, (3, 41))
    assert torch.equal(ids["ngpt"], ids["hf-ngpt"])
    assert torch.equal(ids["nemotron"], ids["hf-nemotron"])


def test_arms_take_turns_and_the_first_token_divides_the_phases(monkeypatch):
    now, calls = [0.0], []

    def arm(name, prefill, step):
        def run(tokens, new, tell):
            calls.append(name)
            now[0] += prefill
            for at in range(new):
                now[0] += step if at else 0
                tell(torch.tensor([at]))

        return run

    monkeypatch.setattr(bench, "clock", lambda _: now[0])
    seconds, ids = time_rounds({"a": arm("a", 5, 1), "b": arm("b", 7, 2)}, torch.zeros(1, 3), 4, rounds=2, warmup=1)
    assert calls == ["b", "a", "a", "b", "b", "a"]
    assert seconds == {"prefill": {"a": [5.0, 5.0], "b": [7.0, 7.0]}, "decode": {"a": [4.0, 4.0], "b": [8.0, 8.0]}}
    assert ids["a"].tolist() == [[0, 1, 2, 3, 4]]


def test_figures_are_of_each_phase_and_ratios_are_paired():
    threads = torch.get_num_threads()
    measured = measure(DIMS, Work(batch=2, prompt=8, new=4), rounds=3, warmup=1)
    assert torch.get_num_threads() == threads
    assert measured["same_ids"] == {"ngpt": True, "nemotron": True}
    for phase, tokens in (("prefill", 16), ("decode", 8)):
        shown = measured[phase]["arms"]
        assert list(shown) == ARMS
        assert all(len(arm["seconds"]) == 3 and min(arm["seconds"]) > 0 for arm in shown.values())
        assert shown["ngpt"]["tokens_per_second"] == tokens / shown["ngpt"]["median"]
        pairs = zip(shown["hf-ngpt"]["seconds"], shown["hf-nemotron"]["seconds"], strict=True)
        assert measured[phase]["ratios"]["hf-ngpt"]["per_round"] == [a / b for a, b in pairs]
        assert set(measured[phase]["ratios"]) == set(ARMS) - {"hf-nemotron"}


def test_the_command_measures_and_writes_the_figures(tmp_path, capsys):
    shape = ["--vocab_size", "61", "--d_model", "32", "--n_layers", "1", "--n_heads", "4", "--n_kv_heads", "1"]
    work = ["--batch", "2", "--prompt", "5", "--new", "3", "--rounds", "2", "--warmup", "0", "--dtype", "bfloat16"]
    main(["bench", "generate", *shape, *work, "--json", str(tmp_path / "cost.json")])
    measured = json.loads((tmp_path / "cost.json").read_text())
    assert (measured["dims"]["d_head"], measured["dims"]["d_ff"], measured["dims"]["n_kv_heads"]) == (8, 128, 1)
    assert (measured["work"], measured["dtype"]) == ({"batch": 2, "prompt": 5, "new": 3}, "bfloat16")
    out = capsys.readouterr().out
    assert all(name in out for name in (*ARMS, "prefill", "decode"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rounds", "0"], "--rounds is 0: it must be at least 1"),
        (["--new", "0"], "--new is 0: it must be at least 1"),
        (["--d_model", "30"], r"--d_model \(30\) is not a multiple of --n_heads \(8\): give a --d_head"),
        (["--n_heads", "0"], r"dims\.n_heads is 0"),
        (["--device", "tape"], "--device tape cannot be used here"),
    ],
)
def test_bad_options_are_refused(words, told):
    from ngpt_lab.bench.generate_command import main

    with pytest.raises(InputError, match=told):
        main(words)


def test_without_transformers_there_is_a_clear_word(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"bench generate measures transformers too .*: install ngpt-lab\[hf\]"):
        build(DIMS, torch.float32, CPU)
