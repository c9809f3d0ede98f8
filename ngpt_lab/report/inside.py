"""What the checkpoints show: one seed of a few arms, because every matrix is decomposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from ngpt_lab.analysis import figures
from ngpt_lab.analysis.runs import Run, at_full_budget, of_arm
from ngpt_lab.errors import InputError
from ngpt_lab.report.comparison import Condition

if TYPE_CHECKING:
    from torch import Tensor

LOOKED_INTO = 4
_WEIGHTS = ("checkpoints/last.ckpt", "weights.safetensors")
_TEXTS = 4
"""Windows of the validation split whose path through the decoder is followed."""


@dataclass(frozen=True, eq=False)
class Inside:
    """Tidy frames with columns arm and seed, by what they show; `note` says which runs, or why there are none."""

    note: str
    frames: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def draw(self, arms: Sequence[str]) -> dict[str, Figure | None]:
        """The figures, under the names of their plates."""
        if not self.frames:
            return {}
        own = self.frames
        drawn = {
            "embeddings": figures.embedding_geometry(own["norms"], own["eigenvalues"], own["dots"], arms),
            "condition-numbers": figures.condition_numbers(own["conditions"], arms, own["renormalised"]),
        }
        return drawn | {"stream-path": figures.stream_path(own["path"], arms)} if "path" in own else drawn


def look_inside(condition: Condition, arms: Sequence[str]) -> Inside:
    """Geometry and stream path of the first seed of at most four of `arms`, where their weights are still there."""
    kept = {run.arm: run for arm in arms if (run := _with_weights(condition, arm)) is not None}
    chosen = list(kept.values())[:LOOKED_INTO]
    if not chosen:
        return Inside("No run kept its weights (checkpoints/last.ckpt), so what is inside the models cannot be shown.")
    notes = [f"Of one seed an arm: {', '.join(f'{run.arm} (seed {run.seed})' for run in chosen)}."]
    if missing := [arm for arm in arms if arm not in kept]:
        notes.append(f"No weights were kept of {', '.join(missing)}.")
    if len(kept) > len(chosen):
        notes.append(f"No more than {LOOKED_INTO} are looked into.")
    tokens = _validation_windows(chosen)
    if tokens is None:
        notes.append("The path of the residual stream needs the text of the runs, which is not where it was.")
    parts: dict[str, list[pd.DataFrame]] = {}
    for run in chosen:
        try:
            measured = _measure(run, tokens)
        except InputError as error:
            notes.append(f"{run.folder.name} could not be looked into: {str(error).rstrip('.')}.")
            continue
        for name, frame in measured.items():
            parts.setdefault(name, []).append(frame.assign(arm=run.arm, seed=run.seed))
    return Inside(" ".join(notes), {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()})


def _with_weights(condition: Condition, arm: str) -> Run | None:
    full = sorted(at_full_budget(of_arm(condition.runs, arm)), key=lambda run: run.seed)
    return next((run for run in full if any((run.folder / file).is_file() for file in _WEIGHTS)), None)


def _validation_windows(runs: Sequence[Run]) -> Tensor | None:
    """A few windows of the text that all these runs share; None where no run finds it."""
    # Loads torch and lightning, which a report without checkpoints need not wait for.
    from ngpt_lab.interop.trained import run_data

    for run in runs:
        with suppress(InputError):
            loaders = run_data(run.folder).val_dataloader()
            loader = loaders[0] if isinstance(loaders, list) else loaders
            return next(iter(loader)).tokens[:_TEXTS]
    return None


def _measure(run: Run, tokens: Tensor | None) -> dict[str, pd.DataFrame]:
    from ngpt_lab.analysis import geometry
    from ngpt_lab.analysis.stream import stream_path
    from ngpt_lab.interop.trained import load_trained

    decoder = load_trained(run.folder).decoder
    measured = {
        "norms": geometry.matrix_norms(decoder),
        "eigenvalues": geometry.embedding_eigenvalues(decoder),
        "dots": geometry.pairwise_dots(decoder),
        "conditions": geometry.condition_numbers(decoder),
        "renormalised": geometry.condition_numbers(decoder, renormalized=True),
    }
    return measured if tokens is None else measured | {"path": stream_path(decoder, tokens)}
