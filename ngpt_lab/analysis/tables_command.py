"""`ngpt-lab tables`."""

from pathlib import Path
from typing import Any

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab tables`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    # Loads pandas and scipy, which usage errors need not wait for.
    from ngpt_lab.analysis.results import read_results
    from ngpt_lab.analysis.step_costs import STEP_COST, read_step_costs, seconds_by_condition
    from ngpt_lab.analysis.table_text import to_latex, to_markdown
    from ngpt_lab.analysis.tables import all_tables

    rows = read_results(options.results)
    folder = options.results.parent
    asked = _asked(folder) | {name: value for name in ("baseline", "metric") if (value := getattr(options, name))}
    if missing := [name for name in ("baseline", "metric") if not isinstance(asked.get(name), str)]:
        raise InputError(f"no sweep.json or sweep.yaml beside {options.results} names the {missing[0]}: give --{missing[0]}.")
    seconds = seconds_by_condition(read_step_costs(folder / STEP_COST), rows.loc[rows["stage"] == "final", "condition"])
    tables = all_tables(rows, asked["baseline"], asked["metric"], seconds)
    show = to_latex if options.latex else to_markdown
    print("\n".join(show(table) for table in tables), end="")


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(prog="ngpt-lab tables", description="Draw every table of a sweep again from its results.csv.")
    parser.add_argument("results", type=Path, metavar="RESULTS.csv", help="the results of a sweep")
    parser.add_argument("--baseline", metavar="ARM", help="the arm the others are compared with (as the sweep has it)")
    parser.add_argument("--metric", metavar="NAME", help="what is compared, such as test/loss (as the sweep has it)")
    parser.add_argument("--latex", action="store_true", help="LaTeX with booktabs instead of Markdown")
    return parser


def _asked(folder: Path) -> dict[str, Any]:
    """The comparison that the sweep was made for."""
    from ngpt_lab.analysis.runs import read_json

    if (folder / "sweep.json").exists():
        return read_json(folder / "sweep.json")
    specification = folder / "sweep.yaml"
    if not specification.exists():
        return {}
    import yaml

    try:
        content = yaml.safe_load(specification.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{specification} cannot be read as YAML: restore it or remove it.") from error
    compare = content.get("compare") if isinstance(content, dict) else None
    return compare if isinstance(compare, dict) else {}
