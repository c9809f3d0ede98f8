"""Bounds: met by the median, or by a narrow interval; and the shipped files say what can be measured."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ngpt_lab.bench import bounds_command, generate_command, loss_command, projection_command, step_command
from ngpt_lab.bench.bounds import Bound, judge, read_bounds
from ngpt_lab.cli import main
from ngpt_lab.errors import InputError

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments" / "speed").glob("*.yaml"))
OPTIONS = {
    "step": step_command.parser,
    "generate": generate_command.parser,
    "loss": loss_command.parser,
    "projection": projection_command.parser,
}


def figures(*ratios: float) -> dict:  # type: ignore[type-arg]
    arms = {"a": list(ratios), "slow": [9.0] * len(ratios), "b": [1.0] * len(ratios)}
    return {
        "arms": {name: {"seconds": times, "median": sorted(times)[1], "held": {"bytes": 6}} for name, times in arms.items()}
    }


@pytest.mark.parametrize(
    ("ratios", "met"),
    [
        ((1.029, 1.03, 1.031), True),  # the median is within
        ((1.03, 1.034, 1.038), True),  # above it by less than the half-width, 0.0099
        ((1.044, 1.045, 1.046), False),  # above it by more than the half-width, 0.0025
        ((1.0, 1.04, 1.08), False),  # the half-width, 0.1, is too wide to excuse anything
    ],
)
def test_a_bound_is_met_by_the_median_or_by_a_narrow_interval(ratios: tuple[float, ...], met: bool) -> None:
    verdict = judge(Bound("a ratio", "x", ["a", "b"], most=1.03), figures(*ratios))
    assert (verdict.value, verdict.met) == (ratios[1], met)


def test_the_fastest_that_is_there_stands_for_its_group() -> None:
    verdict = judge(Bound("a ratio", "x", [["slow", "left out", "a"], ["b"]]), figures(2.0, 2.0, 2.0))
    assert (verdict.arms, verdict.value, verdict.met) == (["a", "b"], 2.0, None)
    with pytest.raises(InputError, match="'a ratio': x has no 'left out or gone'"):
        judge(Bound("a ratio", "x", [["left out", "gone"], "b"]), figures(2.0, 2.0, 2.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("asked", [{"most": 1.0}, {"least": 0.5}])
def test_a_figure_that_is_not_finite_meets_nothing(value: float, asked: dict[str, float]) -> None:
    told = {"arms": {"a": {"share": value, "median": 1.0}}}
    assert judge(Bound("a share", "x", ["a"], key="share", **asked), told).met is False  # type: ignore[arg-type]


def test_a_bound_that_divides_by_fewer_than_it_names_is_not_met() -> None:
    measured = {**figures(1.0, 1.0, 1.0), "left_out": {"fast": "it fails"}}
    below = judge(Bound("a ratio", "x", ["a", ["b", "fast"]], most=2), measured)
    above = judge(Bound("a ratio", "x", [["a", "fast"], ["b"]], most=2), measured)
    told = judge(Bound("a ratio", "x", ["a", ["b", "fast", "gone"]]), measured)
    assert [(v.value, v.met, v.left_out) for v in (below, above, told)] == [
        (1.0, False, {"fast": "it fails"}),
        (1.0, True, {"fast": "it fails"}),
        (1.0, None, {"fast": "it fails", "gone": "not measured"}),
    ]


def test_other_figures_are_taken_or_divided_as_they_are() -> None:
    taken = judge(Bound("bytes", "x", ["a"], key="held.bytes", least=7), figures(1, 1, 1))
    divided = judge(Bound("bytes", "x", ["a", "b"], key="held.bytes", most=1, phase="p"), {"p": figures(1, 1, 1)})
    assert [(v.value, v.half_width, v.met) for v in (taken, divided)] == [(6.0, None, False), (1.0, None, True)]
    with pytest.raises(InputError, match="'bytes': the kind of x makes no figure"):
        judge(Bound("bytes", "x", ["a"], key="kind"), {"arms": {"a": {"kind": "sdpa", "median": 1.0}}})


LOSS = "loss --vocab_size 60 --d_model 8 --tokens 16 --rounds 3 --warmup 0"


@pytest.fixture
def _in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Measurements in this process: to import everything in another takes longer than to measure."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:3] == [sys.executable, "-m", "ngpt_lab"]
        try:
            main(command[3:])
        except SystemExit as end:
            return subprocess.CompletedProcess(command, int(end.code or 0), stderr=capsys.readouterr().err)
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr("ngpt_lab.bench.bounds_command.subprocess.run", run)
    monkeypatch.setattr(bounds_command, "source_state", lambda: {"commit": None, "diff": None})


@pytest.mark.usefixtures("_in_process")
def test_the_command_measures_and_tells_what_is_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "bounds.yaml", tmp_path / "out"
    easy, hard = ({"says": name, "of": "loss", "arms": ["chunked"], "key": "share_of_logits"} for name in ("easy", "hard"))
    missing = {"says": "missing", "of": "bad", "arms": ["a", "b"], "most": 1}
    content = {
        "measurements": {"loss": LOSS.split(), "bad": "loss --rounds 0"},
        "bounds": [easy | {"most": 1e9}, hard | {"most": -1e9}, missing],
    }
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as end:
        main(["bench", "bounds", str(file), "--out", str(out)])
    assert end.value.code == 1
    rows = json.loads((out / "bounds.json").read_text())
    assert [(row["says"], row["met"]) for row in rows] == [("easy", True), ("hard", False), ("missing", False)]
    assert "--rounds is 0: it must be at least 1" in rows[2]["why"]
    assert "easy" in capsys.readouterr().out


@pytest.mark.usefixtures("_in_process")
def test_figures_of_other_words_or_another_source_are_shown_and_meet_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out, package = tmp_path / "bounds.yaml", tmp_path / "out", tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(bounds_command, "PACKAGE", package)

    def rows(kept: str = LOSS, *, only: bool = True) -> list[tuple[object, ...]]:
        bounds = [{"says": of, "of": of, "arms": ["chunked"], "key": "share_of_logits", "most": 1e9} for of in ("new", "kept")]
        file.write_text(json.dumps({"measurements": {"new": LOSS, "kept": kept}, "bounds": bounds}))
        ended = 0
        try:
            main(["bench", "bounds", str(file), "--out", str(out), *(["--only", "new"] if only else [])])
        except SystemExit as end:
            ended = int(end.code or 0)
        new, old = json.loads((out / "bounds.json").read_text())
        assert new["met"] is True
        assert old["value"] > 0
        assert ended == (0 if old["met"] else 1)
        return old["met"], old.get("older")

    assert rows(only=False) == (True, None)
    assert rows() == (True, None)
    capsys.readouterr()
    assert rows(f"{LOSS} --threads 1") == (None, "other words")
    assert "older" in capsys.readouterr().out
    (package / "b.py").write_text("")
    assert rows() == (None, "other source")
    (package / "b.py").unlink()
    assert rows() == (True, None)
    monkeypatch.setattr(bounds_command, "version", lambda name: "0.1")
    assert rows() == (None, "other torch")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("- 1", "is no file of bounds"),
        ("{measurements: {a: loss}, bounds: [{says: x, of: a, arms: [b], mots: 1}]}", "unexpected keyword argument 'mots'"),
        ("{measurements: {a: loss}, bounds: [{says: x, of: b, arms: [c, d]}]}", "'x' is of b, which is not among a"),
        ("{measurements: {a: loss}, bounds: [{says: x, of: a, arms: [c]}]}", "'x' needs the one arm whose seconds"),
        ("{measurements: {a: loss}, bounds: [{says: x, of: a, arms: [c, d], most: '1,03'}]}", "most of 'x' is '1,03': give a"),
        ("{measurements: {a: loss}, bounds: [{says: x, of: a, arms: [c, d], least: .nan}]}", "least of 'x' is nan: give a"),
        ("{measurements: {a: loss}, bounds: [{says: x, of: a, arms: 5}]}", "the arms of 'x' are 5: give a list of names"),
        ("{measurements: {a: loss}, bounds: [{says: x, of: a, arms: cd}]}", "the arms of 'x' are 'cd': give a list of names"),
        (
            "{measurements: {a: loss}, bounds: [{says: x, of: a, arms: [c, []]}]}",
            "the arms of 'x' are .*: give a list of names",
        ),
        ("{measurements: {a: loss}, bounds: [{says: x, of: [a], arms: [c, d]}]}", "the of of 'x' is .*: give it as text"),
        ('{measurements: {a: "loss --device \'cpu"}, bounds: []}', "the words of a cannot be told apart .No closing quotation"),
        ("{measurements: {a: scale --rounds 2}, bounds: []}", "a is a measurement 'scale', which has no arms: choose one of"),
    ],
)
def test_a_file_without_meaning_is_refused(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "bounds.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=told):
        read_bounds(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_bounds(tmp_path / "none.yaml")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_shipped_bounds_are_of_arms_that_are_measured(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    measurements, bounds = read_bounds(file)
    for name, words in measurements.items():
        what, *rest = shlex.split(words)
        options = OPTIONS[what]().parse_args(rest)
        groups = [group for bound in bounds if bound.of == name for group in bound.arms]
        named = {arm for group in groups for arm in ([group] if isinstance(group, str) else group)}
        assert named
        if what == "step":
            arms, _ = step_command.asked_arms(options.arm, options.baseline)
            step_command.compiled_arms(options.compile, arms)
            for arm in arms:
                step_command.settings_of(arm, options.set, arms)
            assert named <= set(arms)
