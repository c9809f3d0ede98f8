"""Which figures a report shows, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from ngpt_lab.analysis import figures
from ngpt_lab.analysis.ablation_table import equal_cost_table
from ngpt_lab.report.ablations import in_condition, most_telling
from ngpt_lab.report.captions import CAPTIONS
from ngpt_lab.report.comparison import Condition
from ngpt_lab.report.inside import Inside
from ngpt_lab.report.measures import ALL_MEASURES, lower_is_better
from ngpt_lab.report.readings import equal_loss_readings
from ngpt_lab.report.tuning import of_condition

_SHOWN_IN_PANELS = 3
_OF_ALL = {"effects", "speed-ups"}
"""Figures of all arms, however many there are."""


@dataclass(frozen=True, eq=False)
class Plate:
    """One figure of a report with its words; `path` is the file's below figures/, less its suffix."""

    path: str
    title: str
    caption: str
    source: str
    figure: Figure


def draw_plates(condition: Condition, metric: str, effects: pd.DataFrame, inside: Inside | None = None) -> list[Plate]:
    """The figures that the runs of one condition can fill; `effects` as `ablations.effects` gives them."""
    arms = most_telling(condition, effects)
    few = arms if len(arms) == len(condition.arms) else most_telling(condition, effects, _SHOWN_IN_PANELS)
    drawn = _compared(condition, metric, effects, arms) | _trained(condition, arms)
    return [
        *_plates(condition, drawn, _chosen(condition, arms)),
        *_plates(condition, _in_panels(condition, arms, few), _chosen(condition, few)),
        *_plates(condition, inside.draw(arms) if inside else {}),
    ]


def _plates(condition: Condition, drawn: Mapping[str, Figure | None], chosen: str = "") -> list[Plate]:
    below = f"{condition.slug}/" if condition.slug else ""
    return [
        Plate(f"{below}{name}", title, caption if name in _OF_ALL else caption + chosen, source, figure)
        for name, figure in drawn.items()
        if figure is not None
        for title, caption, source in [CAPTIONS[name]]
    ]


def _chosen(condition: Condition, arms: Sequence[str]) -> str:
    if len(arms) == len(condition.arms):
        return ""
    shown = f"{condition.arms[0]} and the {len(arms) - 1} that differ most from it"
    return f" Of {len(condition.arms)} arms, {shown}; the tables hold all."


def _compared(condition: Condition, metric: str, effects: pd.DataFrame, arms: Sequence[str]) -> dict[str, Figure | None]:
    """Arms against the baseline."""
    finals = condition.finals
    drawn = {"final-loss": figures.final_loss(finals, arms)}
    if not condition.candidates:
        return drawn
    own = in_condition(effects, condition).drop(columns="condition")
    readings = equal_loss_readings(condition)
    unit = (condition.step_cost or {}).get("unit", "seconds per step")
    several = len(condition.candidates) > 1 and lower_is_better(metric)
    forest = figures.ablation_effects(own, condition.baseline, ALL_MEASURES[metric][1]) if several else None
    return {
        "effects": forest,
        **drawn,
        "paired-difference": figures.paired_differences(finals, arms),
        "tokens-to-equal-loss": figures.tokens_to_equal_loss({arm: readings[arm] for arm in arms[1:]}, arms),
        "speed-ups": figures.speed_ups(_ratios(condition), condition.baseline, condition.arms),
        "step-cost": figures.step_cost({a: s for a, s in condition.step_seconds().items() if a in arms}, arms, unit),
    }


def _ratios(condition: Condition) -> pd.DataFrame:
    """Effort of the baseline over that of each arm: arm, effort, ratio, low, high."""
    table = equal_cost_table(condition.finals, condition.baseline, {condition.name: condition.step_seconds()})
    efforts = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
    frames = [
        pd.DataFrame(
            {
                "arm": table["arm"],
                "effort": effort,
                "ratio": table[key],
                "low": table[f"{key}_low"],
                "high": table[f"{key}_high"],
            }
        )
        for key, effort in efforts.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _trained(condition: Condition, arms: Sequence[str]) -> dict[str, Figure | None]:
    """How training went, and what the eigen learning rates came to."""
    runs = [run for run in condition.runs if run.arm in arms]
    return {
        "loss-curves": figures.loss_curves(runs, arms),
        "eigen-rates-by-layer": figures.eigen_rates_by_layer(runs, arms),
        "norm-error": figures.norm_error(runs, arms),
        "clipped-share": figures.clipped_share(runs, arms),
    }


def _in_panels(condition: Condition, arms: Sequence[str], few: Sequence[str]) -> dict[str, Figure | None]:
    """Figures with panels of their own for each arm; `arms` gives the colours."""
    runs = [run for run in condition.runs if run.arm in few]
    return {
        "eigen-rates-over-time": figures.eigen_rates_over_time(runs, arms),
        "scales": figures.scales_over_time(runs, arms),
    }


def draw_search(condition: Condition, searched: pd.DataFrame | None) -> list[Plate]:
    """The curves of the search under one condition, where there was one."""
    if searched is None or not {"arm", "seed", "budget", "lr", "val_loss"} <= set(searched.columns):
        return []
    rows = of_condition(searched, condition.setting).drop(columns=[*condition.setting, "condition"], errors="ignore")
    rates = ["lr"] if rows["lr"].nunique() > 1 else []
    others = [key for key in _varied(rows) if not key.endswith(".lr")]
    drawn: Mapping[str, Figure | None] = {
        "learning-rates": figures.learning_rate_curves(rows) if rates and not others else None,
        "tuning": figures.tuning_curves(rows, (), [*rates, *others]) if others else None,
    }
    return _plates(condition, drawn)


def _varied(rows: pd.DataFrame) -> list[str]:
    return [str(column) for column in rows.columns if "." in str(column) and rows[column].nunique() > 1]
