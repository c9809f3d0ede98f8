"""A table of words as Markdown and as LaTeX, with every character that means something there escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True, eq=False)
class Table:
    """A table ready to be shown: `frame` holds text alone; `name` serves as the stem of a file and as a label."""

    name: str
    title: str
    note: str
    frame: pd.DataFrame


# A star, an underscore at a word's end, a dollar, ...: what Markdown reads as markup in a cell. Between letters and digits
# an underscore is plain text.
_MARKUP = re.compile(r"([\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_]))")
_NUMBER = re.compile(r"[<]?[-+]?[\d.,]+(e[-+]?\d+)?( to [-+]?[\d.,]+| \([\d.]+\))?|-|")
_MINUS = re.compile(r"(?<!\S)-(?=[\d.])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Plain, they begin ligatures or are shorthands of babel.
    '"': r"\char34{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def to_markdown(table: Table) -> str:
    """Title, a pipe table and the note."""
    columns = list(table.frame.columns)
    rule = ["---:" if _is_number(table.frame[column]) else "---" for column in columns]
    lines = [_line(map(escape_markdown, columns)), _line(rule)]
    lines += [_line(map(escape_markdown, row)) for row in table.frame.itertuples(index=False, name=None)]
    return "\n\n".join([f"### {escape_markdown(table.title)}", "\n".join(lines), escape_markdown(table.note)]).rstrip() + "\n"


def to_latex(table: Table) -> str:
    """A table environment with booktabs rules, the title and the note as its caption."""
    columns = [escape_latex(column) for column in table.frame.columns]
    cells = table.frame.map(escape_latex).set_axis(columns, axis=1)
    alignment = "".join("r" if _is_number(table.frame[column]) else "l" for column in table.frame.columns)
    return cells.style.hide(axis="index").to_latex(
        column_format=alignment,
        hrules=True,
        caption=escape_latex(f"{table.title}. {table.note}".strip()),
        label=f"tab:{table.name}",
        position="htbp",
        position_float="centering",
    )


def escape_markdown(text: str) -> str:
    """Text that a Markdown table shows as it is, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    return _MINUS.sub("$-$", escaped).replace("--", "-{}-")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _is_number(cells: Iterable[str]) -> bool:
    return all(_NUMBER.fullmatch(cell) for cell in cells)
