"""`ngpt-lab generate`: the text comes as it is made, and bad input is refused in one sentence."""

import io
import json
import os
import shutil
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from ngpt_lab.cli import main
from ngpt_lab.errors import InputError
from ngpt_lab.generation import command
from ngpt_lab.generation.loop import generate
from ngpt_lab.interop import trained

CONFIGS = Path(__file__).parents[2] / "configs"
PROMPT = "the norm of "
load_trained = cache(trained.load_trained)  # loading takes longer than generating


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch):
    monkeypatch.setattr(trained, "load_trained", load_trained)


@pytest.fixture(scope="module")
def runs(train, tmp_path_factory):
    """A run of each model, whose tokens are bytes."""
    at = tmp_path_factory.mktemp("runs")
    return {name: train(at / name, CONFIGS / "model" / f"{name}.yaml") for name in ("ngpt", "nemotron")}


@pytest.fixture(scope="module")
def run(runs):
    return runs["ngpt"]


@pytest.fixture
def say(capsys):
    """What the command prints."""

    def said(*words):
        main(["generate", *map(str, words)])
        return capsys.readouterr()

    return said


@pytest.fixture
def refusal(capsys):
    """The sentence that the command ends with."""

    def said(*words):
        with pytest.raises(SystemExit) as end:
            main(["generate", *map(str, words)])
        out = capsys.readouterr()
        assert end.value.code == 2
        assert out.out == ""
        assert out.err.startswith("ngpt-lab: ")
        assert out.err.count("\n") == 1
        return out.err

    return said


def greedy(run, prompt, count):
    tokens = torch.tensor([list(prompt.encode())])
    return [int(new) for new in generate(load_trained(run).decoder, tokens, max_new_tokens=count, stop={0})]


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_the_likeliest_text_comes_by_default(runs, say, model):
    ids = greedy(runs[model], PROMPT, 20)
    assert say(runs[model], "--prompt", PROMPT, "--max_new_tokens", 20).out == bytes(ids).decode(errors="replace") + "\n"


def test_ids_are_printed_between_blanks(run, say):
    ids = greedy(run, PROMPT, 9)
    for checkpoint in (run, run / "checkpoints" / "last.ckpt"):
        assert say(checkpoint, "--prompt", PROMPT, "--max_new_tokens", 9, "--ids").out == " ".join(map(str, ids)) + "\n"


def test_the_prompt_comes_from_a_file_or_standard_input_too(run, say, tmp_path, monkeypatch):
    words = [run, "--max_new_tokens", 5, "--ids"]
    expected = say(*words, "--prompt", "caf\u00e9\n").out
    (tmp_path / "prompt.txt").write_bytes("caf\u00e9\n".encode())
    assert say(*words, "--prompt_file", tmp_path / "prompt.txt").out == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("caf\u00e9\n".encode()), "ascii"))
    assert say(*words).out == expected


def test_a_seed_draws_the_same_again(run, say):
    words = [run, "--prompt", PROMPT, "--max_new_tokens", 40, "--ids", "--temperature", 1, "--top_k", 200, "--top_p", 0.99]
    assert say(*words, "--seed", 1).out == say(*words, "--seed", 1).out
    assert len({say(*words, *seed).out for seed in (["--seed", 1], ["--seed", 2], [], [])}) == 4


def test_the_text_ends_where_the_model_ends_it(run, say, monkeypatch):
    monkeypatch.setattr("ngpt_lab.generation.loop.last_logits", scripted(b"one\0two"))
    assert say(run, "--prompt", PROMPT).out == "one\n"
    monkeypatch.setattr("ngpt_lab.generation.loop.last_logits", scripted(b"one\0two"))
    assert say(run, "--prompt", PROMPT, "--ids").out == "111 110 101 0\n"


def scripted(ids):
    """Logits that choose those ids one after the other."""
    coming = iter(ids)
    return lambda *_: torch.nn.functional.one_hot(torch.tensor([next(coming)]), 256).float()


def test_the_text_ends_with_what_the_generation_config_names_too(run, say, tmp_path, monkeypatch):
    imported = with_tokenizer(run, tmp_path / "run", {"a": 97, "<unk>": 1}, unk_token="<unk>")
    (imported / "generation_config.json").write_text('{"eos_token_id": [32, 0]}')
    monkeypatch.setattr("ngpt_lab.generation.loop.last_logits", scripted(b"one two"))
    assert say(imported, "--prompt", "a", "--ids").out == "111 110 101 32\n"


def test_the_prompt_has_what_the_tokenizer_s_template_adds(run, say, tmp_path, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "run")
    described = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    described["post_processor"]["single"].insert(0, {"SpecialToken": {"id": "\0", "type_id": 0}})
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(described))
    seen = []

    def logits(decoder, tokens, *_):
        seen.append(tokens.tolist())
        return torch.nn.functional.one_hot(torch.tensor([0]), 256).float()

    monkeypatch.setattr("ngpt_lab.generation.loop.last_logits", logits)
    for checkpoint in (folder, run):
        assert say(checkpoint, "--prompt", "ab").out == "\n"
        theirs = AutoTokenizer.from_pretrained(checkpoint / "tokenizer")
        assert seen.pop() == [theirs("ab")["input_ids"]]
    assert theirs("ab")["input_ids"] == [97, 98]


def test_letters_that_the_terminal_has_not_are_replaced(run, monkeypatch):
    monkeypatch.setattr("ngpt_lab.generation.loop.last_logits", scripted("caf\u00e9\0".encode()))
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    main(["generate", str(run), "--prompt", "a"])
    assert out.buffer.getvalue() == b"caf?\n"


@pytest.mark.parametrize("words", [[], ["--temperature", "1", "--top_k", "5"]])
@pytest.mark.parametrize("end", [0, None])
def test_weights_that_are_no_numbers_are_refused(run, refusal, monkeypatch, words, end):
    damaged = load_trained.__wrapped__(run)
    damaged.decoder.embedding.weight.data = damaged.decoder.embedding.weight.data.clone().index_fill(
        0, torch.tensor([97]), float("nan")
    )
    monkeypatch.setattr(trained, "load_trained", lambda *_: damaged)
    monkeypatch.setattr("ngpt_lab.interop.run_tokenizer.stop_ids", lambda *_: set() if end is None else {end})
    assert "the model gives logits that are no finite numbers" in refusal(run, "--prompt", "a", "--max_new_tokens", 9, *words)


def test_what_is_no_run_is_told_before_the_prompt_is_read(refusal, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert "there is no run folder or checkpoint" in refusal(tmp_path / "nowhere")


def test_a_text_longer_than_any_the_model_saw_is_told(run, say):
    assert say(run, "--prompt", PROMPT, "--max_new_tokens", 64 - len(PROMPT)).err == ""
    told = say(run, "--prompt", PROMPT, "--max_new_tokens", 65 - len(PROMPT)).err
    assert told == "ngpt-lab: the text can grow to 65 tokens, and the model was trained on at most 64 at a time\n"


@pytest.mark.parametrize("dtype", ["stored", "float32", "bfloat16"])
def test_weights_can_be_used_in_another_dtype(run, say, dtype):
    assert len(say(run, "--prompt", PROMPT, "--max_new_tokens", 3, "--ids", "--dtype", dtype).out.split()) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--prompt", ""], "the prompt is empty: give a text to continue"),
        (["--prompt", "\udce9"], "the prompt is not UTF-8"),
        (["--prompt", "a", "--prompt_file", "b"], "not allowed with argument --prompt"),
        (["--prompt_file", "/nowhere/at/all"], "/nowhere/at/all cannot be read: No such file"),
        (["--prompt", "a", "--max_new_tokens", "0"], "--max_new_tokens is 0: it must be at least 1"),
        (["--prompt", "a", "--temperature", "-1"], "temperature is -1.0: it must be at least 1e-20"),
        (["--prompt", "a", "--temperature", "1", "--top_k", "0"], "top_k is 0: it must be at least 1"),
        (["--prompt", "a", "--temperature", "1", "--top_p", "0"], "top_p is 0.0: it must be above 0 and at most 1"),
        (["--prompt", "a", "--temperature", "1", "--min_p", "1"], "min_p is 1.0: it must be at least 0 and below 1"),
        (["--prompt", "a", "--top_k", "3"], "--top_k needs a --temperature above 0: at 0 nothing is drawn"),
        (["--prompt", "a", "--seed", "3"], "--seed needs a --temperature above 0: at 0 nothing is drawn"),
        (["--prompt", "a", "--temperature", "1", "--seed", "9" * 30], "--seed is 999999999999999999999999999999: it must be"),
        (["--prompt", "a", "--temperature", "1", "--seed", "-1"], "--seed is -1: it must be at least 0 and below 184467"),
        (["--prompt", "a", "--temperature", "1e-40"], "temperature is 1e-40: it must be at least 1e-20 and finite"),
        (["--prompt", "a", "--device", "tape"], "--device tape cannot be used here"),
        (["--prompt", "a", "--device", "meta"], "--device meta cannot be used here"),
        (["--prompt", "a", "--device", "hpu"], "--device hpu cannot be used here"),
        (["--prompt", "a", "--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_bad_options_are_refused(run, refusal, words, told):
    assert told in refusal(run, *words)


def test_a_prompt_that_is_no_text_is_refused(run, refusal, tmp_path):
    (tmp_path / "prompt.txt").write_bytes(b"caf\xe9")
    assert "prompt.txt is not UTF-8" in refusal(run, "--prompt_file", tmp_path / "prompt.txt")


def test_what_is_no_run_is_refused(refusal, tmp_path):
    assert "there is no run folder or checkpoint" in refusal(tmp_path / "nowhere", "--prompt", "a")


def changed(run, folder, **data):
    """The run with another data section and no tokenizer of its own."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").symlink_to(run / "checkpoints" / "last.ckpt")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = data
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def with_tokenizer(run, folder, vocabulary, **model):
    """A run whose tokenizer knows those words."""
    (changed(run, folder) / "tokenizer").mkdir()
    described = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocabulary, **model}}
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(described))
    return folder


def test_a_run_without_a_tokenizer_is_refused(run, refusal, tmp_path):
    assert "has no tokenizer" in refusal(changed(run, tmp_path / "run"), "--prompt", "a")


def test_a_prompt_that_the_tokenizer_cannot_encode_is_refused(run, refusal, tmp_path):
    lacking = with_tokenizer(run, tmp_path / "lacking", {"a": 0}, unk_token="<unk>")
    assert "the tokenizer cannot encode the prompt" in refusal(lacking, "--prompt", "b")
    other = with_tokenizer(run, tmp_path / "other", {"a": 0, "b": 256, "<unk>": 1}, unk_token="<unk>")
    assert "the tokenizer gives id 256, and the model knows 256" in refusal(other, "--prompt", "b")


def test_a_prompt_without_tokens_is_refused():
    class Nothing:
        def encode_with_template(self, text):
            return []

    with pytest.raises(InputError, match="the tokenizer makes no token of the prompt"):
        command.encoded(" ", Nothing(), 256)


def test_a_task_s_model_is_refused(run, refusal, monkeypatch):
    of_task = load_trained.__wrapped__(run)
    of_task.decoder.take_head()
    monkeypatch.setattr(trained, "load_trained", lambda *_: of_task)
    assert "has a task's head, which gives no next token" in refusal(run, "--prompt", "a")


def test_ctrl_c_ends_the_line_and_leaves(run, capsys, monkeypatch):
    def interrupted(*_):
        yield "the "
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "words", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["generate", str(run), "--prompt", "a"])
    assert end.value.code == 130
    out = capsys.readouterr()
    assert (out.out, out.err.splitlines()[-1]) == ("the \n", "ngpt-lab: interrupted")


def test_a_reader_that_has_had_enough_is_no_error(run, capsys, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        main(["generate", str(run), "--prompt", "a", "--max_new_tokens", "60"])
        pipe.write("what is still to be flushed")
    assert capsys.readouterr().err == ""
