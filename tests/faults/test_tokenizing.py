"""Whatever kills a process that makes tokens, they end up as if nothing had, and so does the run that reads them."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., list[str]]
Whole = Callable[..., Path]
Tools = dict[str, Any]

SHARD_TOKENS = "1000"
BPE = ("--data.tokenizer=BPE", "--data.tokenizer.vocab_size=300", "--data.source.separator=\n")
TOKENS_OF_A_RUN = (*BPE, "--data.processes=2", "--model.backbone.dims.vocab_size=304")
# How often tokenizing tells that it is there, at the least: for each of the shards above all.
TIMES = 30


@pytest.fixture
def places(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """The environment of a process that makes tokens, and the folder that they, and nothing else, are left in."""
    (tmp_path / "temporary").mkdir()
    cache = tmp_path / "cache"
    environment = {"SHARD_TOKENS": SHARD_TOKENS, "NGPT_LAB_CACHE": str(cache), "TMPDIR": str(tmp_path / "temporary")}
    return environment, cache / "tokens"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where nothing disturbs the making of tokens."""
    return tmp_path_factory.mktemp("cache")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a store."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def files(folder: Path) -> list[Path]:
    """The files in and below a folder; torch makes itself a folder."""
    return [path for path in folder.rglob("*") if not path.is_dir()]


def random_moment(moments: random.Random) -> tuple[int, float]:
    at, later = moments.randrange(TIMES), moments.uniform(0, 0.1)
    print(f"killed {later * 1000:.0f} ms after tokenizing told that it is there for the time numbered {at}")
    return at, later


@pytest.mark.faults
@pytest.mark.parametrize("number", range(1, 6))
def test_a_run_that_was_killed_while_it_made_tokens_ends_like_one_that_was_not(
    number: int,
    undisturbed: Whole,
    command: Command,
    moments: random.Random,
    tools: Tools,
    tmp_path: Path,
    places: tuple[dict[str, str], Path],
    cache: Path,
) -> None:
    model = ("ngpt", "nemotron")[number % 2]
    environment, tokens = places
    words = command(tmp_path / "run", model, *tools["settings"], *TOKENS_OF_A_RUN, "--ckpt_path=auto")
    tools["killed"](words, "tokenizing", *random_moment(moments), environment, everyone=False)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    tools["carried_out"](words, environment)
    whole = {"SHARD_TOKENS": SHARD_TOKENS, "NGPT_LAB_CACHE": str(cache)}
    tools["assert_same"](tmp_path / "run", undisturbed(model, *TOKENS_OF_A_RUN, environment=whole))
    [made], [expected] = tokens.iterdir(), (cache / "tokens").iterdir()
    assert contents(made) == contents(expected)
    assert not files(tmp_path / "temporary")


@pytest.mark.faults
@pytest.mark.parametrize("number", range(1, 5))
def test_tokens_whose_making_was_killed_again_and_again_are_those_of_an_undisturbed_process(
    number: int,
    corpus: Path,
    moments: random.Random,
    tools: Tools,
    tmp_path: Path,
    places: tuple[dict[str, str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    environment, _ = places

    def words(folder: Path) -> list[str]:
        source = ("--data=ngpt_lab.data.TextDataModule", "--data.source=TextFiles", f"--data.source.files={corpus}", *BPE)
        return ["tokenize", *source, f"--data.store={folder}", "--processes=2", f"--shard_tokens={SHARD_TOKENS}"]

    for _ in range(number):
        at, later = random_moment(moments)
        tools["killed"](words(tmp_path / "made" / "a"), "tokenizing", at // number, later, environment, everyone=False)
    tools["carried_out"](words(tmp_path / "made" / "a"), environment)
    whole = tmp_path_factory.mktemp("whole") / "b"
    tools["carried_out"](words(whole), environment)
    assert contents(tmp_path / "made" / "a") == contents(whole)
    assert {path.name for path in (tmp_path / "made").iterdir()} <= {"a", "a.is-there"}
    assert not files(tmp_path / "temporary")
    assert len(list(whole.glob("*.bin"))) + 5 >= TIMES  # else a moment may never come
