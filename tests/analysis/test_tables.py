import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ngpt_lab.analysis.columns import COLUMNS
from ngpt_lab.analysis.table_settings import OPTIMISATION, TABLE_SETTINGS
from ngpt_lab.analysis.table_text import Table, to_latex, to_markdown
from ngpt_lab.analysis.tables import all_tables
from ngpt_lab.analysis.tables_command import main
from ngpt_lab.errors import InputError
from ngpt_lab.training.cli import DryCLI

MadeRows = Callable[..., pd.DataFrame]
CONFIGS = Path(__file__).parents[2] / "configs"
RATE = "model.init_args.optimizer.init_args.lr"
EVIL = "a|b <i>_x_ *y* `z` \"q\" 's' $1$ 5% #6 {7} ~8~ ^9 \\n [l](u) &amp; a--b scalar_s_qk"


class Cells(HTMLParser):
    """The text of every cell of the tables in a page, and whatever else it was made of."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells and data.strip():
            self.cells[-1] += data


def rendered(markdown: str) -> Cells:
    page = Cells()
    page.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))
    return page


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]) | st.just(" "), min_size=1).filter(str.split)


@given(st.lists(words, min_size=2, max_size=4, unique=True))
def test_markdown_shows_every_cell_as_it_is(cells: list[str]) -> None:
    table = Table("t", "Title", "", pd.DataFrame([cells], columns=[f"column {place}" for place in range(len(cells))]))
    page = rendered(to_markdown(table))
    assert page.cells[len(cells) :] == [" ".join(cell.split()) for cell in cells]
    assert page.tags <= {"h3", "table", "thead", "tbody", "tr", "th", "td"}


def test_a_name_made_of_markup_stays_a_name_in_markdown() -> None:
    page = rendered(to_markdown(Table("t", EVIL, EVIL, pd.DataFrame({EVIL: [EVIL]}))))
    assert page.cells[0] == EVIL
    assert page.cells[1].startswith(EVIL)
    assert page.tags == {"h3", "p", "table", "thead", "tbody", "tr", "th", "td"}


def from_latex(text: str) -> str:
    """What LaTeX prints for escaped text."""
    commands = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">"}
    commands |= {"textbar": "|", "textquotesingle": "'", "textasciigrave": "`", "char34": '"'}
    text = text.replace("-{}-", "--").replace("$-$", "-")
    return re.sub(r"\\([a-z]+\d*)\{\}|\\([&%$#_{}])", lambda match: commands[match[1]] if match[1] else match[2], text)


@given(words)
def test_latex_prints_every_cell_as_it_is(cell: str) -> None:
    latex = to_latex(Table("t", "Title", "", pd.DataFrame({"column": [cell]})))
    [line] = re.findall(r"\\midrule\n(.*) \\\\\n\\bottomrule", latex, flags=re.DOTALL)
    assert from_latex(line) == " ".join(cell.split())
    assert not re.search(r"(?<!\\)[&%#_]", line)
    assert not re.search(r'[<>|"~^`\']', line)


def test_latex_has_booktabs_rules_a_caption_and_minus_signs() -> None:
    latex = to_latex(Table("t_1", "50% of_it", "A note.", pd.DataFrame({"a_b": ["x"], "n": ["-0.5 to -0.1"]})))
    assert [latex.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"\caption{50\% of\_it. A note.}" in latex
    assert r"\begin{tabular}{lr}" in latex
    assert r"a\_b & n \\" in latex
    assert r"x & $-$0.5 to $-$0.1 \\" in latex


@pytest.fixture
def rows(made_rows: MadeRows) -> pd.DataFrame:
    """Two arms at three budgets, trials of both, one failed run."""
    settings = {RATE: 0.004, "model.init_args.optimizer.init_args.betas": "[0.9, 0.95]", "trainer.precision": "32-true"}
    arms = {"plain": [2.0, 2.1, 2.2], EVIL: [1.9, 2.01, 2.09]}
    finals = [made_rows({a: [loss + k for loss in of] for a, of in arms.items()}, 409_600 >> k, **settings) for k in (0, 1, 2)]
    trials = [
        made_rows({"plain": [loss]}, stage="tune", status=status, **settings | {RATE: rate}, name=f"tune-{rate}", seed=101)
        for rate, loss, status in ((0.002, 2.3, "finished"), (0.004, 2.0, "finished"), (0.008, None, "failed"))
    ]
    trials += [
        made_rows({EVIL: [loss]}, stage="tune", **settings | {RATE: rate}, name=f"tune-e{rate}", seed=101)
        for rate, loss in ((0.002, 1.9), (0.004, 2.0), (0.008, 2.1))
    ]
    made = pd.concat([*finals, *trials], ignore_index=True)
    of_nothing = made["arm"] == "plain"
    return made.assign(**{"mean/s_z": 61.18}).assign(**{"mean/s_z": lambda frame: frame["mean/s_z"].mask(of_nothing)})


def named(rows: pd.DataFrame, **options: object) -> dict[str, pd.DataFrame]:
    return {table.name: table.frame for table in all_tables(rows, "plain", "test/loss", **options)}  # type: ignore[arg-type]


def test_every_table_is_drawn(rows: pd.DataFrame) -> None:
    assert list(named(rows)) == [
        *("ablations", "equal_loss", "finished_losses", "learned_scales", "sizes", "optimisation", "tuning", "unfinished")
    ]


def test_the_tables_hold_what_the_rows_hold(rows: pd.DataFrame) -> None:
    tables = named(rows, step_seconds={"": {"plain": [1.0, 1.0], EVIL: [2.0, 2.0]}})
    ablation = tables["ablations"].set_index("arm").loc[EVIL]
    assert (ablation["tokens"], ablation["seeds"], ablation["test/loss"], ablation["effect"]) == (
        "409,600",
        "3",
        "2.0000",
        "-0.1000",
    )
    assert ablation["95% interval"] == "-0.1248 to -0.0752"
    assert ablation["verdict"] == "lower"
    cost = tables["equal_loss"].iloc[0]
    assert float(cost["tokens"]) == pytest.approx(2 * float(cost["seconds"]), abs=0.02)
    assert tables["finished_losses"]["test/loss"].iloc[-1] == "2.1000 (0.1000)"
    assert tables["learned_scales"][["arm", "s_z"]].to_numpy().tolist() == [[EVIL, "61.180"]]
    assert tables["sizes"]["parameters"].to_list() == ["856,000"] * 2
    assert tables["optimisation"].iloc[0].to_list() == ["plain", "0.004", "[0.9, 0.95]", "32-true"]
    assert tables["unfinished"]["run"].to_list() == ["tune-0.008"]


def test_tuning_shows_the_best_trial_and_an_optimum_at_the_edge(rows: pd.DataFrame) -> None:
    found = named(rows)["tuning"].set_index("arm")
    assert found.loc["plain"].to_list() == ["409,600", "3", "1", "lr=0.004", "2.0000", "no"]
    assert found.loc[EVIL].to_list() == ["409,600", "3", "1", "lr=0.002", "1.9000", "lr"]


def test_when_every_trial_failed_none_is_the_best(rows: pd.DataFrame) -> None:
    failed = rows.assign(status=rows["status"].mask(rows["stage"] == "tune", "failed"))
    assert set(named(failed)["tuning"]["best"]) == {"-"}


def test_a_condition_is_shown_where_there_are_several(rows: pd.DataFrame) -> None:
    both = pd.concat([rows.assign(condition=f"seq_len={length}") for length in (1024, 256)])
    assert "condition" not in named(rows)["ablations"]
    for name in ("ablations", "equal_loss", "finished_losses", "learned_scales", "tuning"):
        assert list(dict.fromkeys(named(both)[name]["condition"])) == ["seq_len=256", "seq_len=1024"]


def test_one_arm_alone_still_has_its_losses(made_rows: MadeRows) -> None:
    assert list(named(made_rows({"plain": [2.0]}))) == ["ablations", "finished_losses", "sizes"]


@pytest.fixture
def results(tmp_path: Path, rows: pd.DataFrame) -> Path:
    path = tmp_path / "results.csv"
    rows[[*COLUMNS, *(column for column in rows if column in OPTIMISATION)]].to_csv(path, index=False)
    return path


def test_the_command_redraws_the_tables_of_the_rows(
    results: Path, rows: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, show in (([], to_markdown), (["--latex"], to_latex)):
        main([str(results), "--baseline", "plain", "--metric", "test/loss", *flags])
        assert capsys.readouterr().out == "\n".join(show(table) for table in all_tables(rows, "plain", "test/loss"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sweep.json", json.dumps({"baseline": "plain", "metric": "val/loss"})),
        ("sweep.yaml", "compare: {baseline: plain, metric: val/loss}"),
    ],
)
def test_baseline_and_metric_are_those_of_the_sweep(
    results: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    (results.parent / name).write_text(content)
    main([str(results)])
    assert capsys.readouterr().out.startswith("### val/loss against plain\n")
    main([str(results), "--metric", "test/loss"])
    assert capsys.readouterr().out.startswith("### test/loss against plain\n")


def test_step_costs_beside_the_results_give_seconds(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = {"plain": {"seconds": [1.0, 1.0]}, EVIL: {"seconds": [2.0, 2.0]}}
    (results.parent / "step_cost.json").write_text(json.dumps({"arms": arms}))
    main([str(results), "--baseline", "plain", "--metric", "test/loss"])
    assert "| seconds | seconds, interval |" in html.unescape(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("sweep.yaml", "question: why", "names the baseline: give --baseline"),
        ("sweep.yaml", "compare: [", "cannot be read as YAML"),
        ("sweep.json", "{", "not valid JSON"),
        ("sweep.json", '{"baseline": "plain"}', "names the metric: give --metric"),
        ("sweep.json", '{"baseline": "other", "metric": "val/loss"}', "'other' has no finished run"),
        ("step_cost.json", '{"arms": {"plain": 1}}', "needs the seconds of the same number of rounds"),
    ],
)
def test_bad_files_beside_the_results_are_named(results: Path, name: str, content: str, words: str) -> None:
    (results.parent / name).write_text(content)
    options = ["--baseline=plain", "--metric=test/loss"] if name == "step_cost.json" else []
    with pytest.raises(InputError, match=re.escape(words)):
        main([str(results), *options])


def test_without_results_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape("results.csv cannot be read")):
        main([str(tmp_path / "results.csv")])


def test_the_settings_shown_are_settings_of_a_run() -> None:
    files = [CONFIGS / name for name in ("base.yaml", "model/ngpt.yaml", "size/debug.yaml")]
    settings = DryCLI([word for file in files for word in ("-c", str(file))]).settings
    assert set(TABLE_SETTINGS) <= settings.keys()
