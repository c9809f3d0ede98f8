"""Forgetting and relearning, read off runs whose losses are made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.analysis.plasticity import plasticity
from ngpt_lab.analysis.runs import Run, load_run
from ngpt_lab.errors import InputError

PHASE = 4 * 2048
# Tokens in quarters of a phase -> loss of the first and of the second text.
LOSSES = {2: (2.5, 3.5), 4: (2.0, 3.0), 6: (2.6, 2.2), 8: (3.0, 1.8), 9: (2.4, 1.9), 10: (1.9, 2.0), 12: (1.7, 2.4)}


@pytest.fixture
def run(tmp_path: Path, write_run: Callable[..., Path]) -> Callable[..., Run]:
    """A run of three phases of four steps, validated at the given quarters."""

    def make(losses: Mapping[int, tuple[float, float]] = LOSSES, **settings: Any) -> Run:
        folder = write_run(tmp_path / f"ngpt-{len(list(tmp_path.iterdir()))}", budget=3 * PHASE, seed=7)
        record = json.loads((folder / "run.json").read_text())
        record["settings"] |= {"data.init_args.switch_every": 4, "trainer.accumulate_grad_batches": 1, **settings}
        (folder / "run.json").write_text(json.dumps(record))
        rows = [
            {"step": quarter, "tokens": quarter * PHASE // 4, "time": 1.0, "val/loss": first, "val_other/loss": second}
            for quarter, (first, second) in losses.items()
        ]
        train = [{"step": 3, "tokens": 3 * PHASE // 4, "time": 1.0, "train/loss": 9.0}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*train, *rows]))
        return load_run(folder)

    return make


def test_forgetting_is_what_the_first_texts_loss_gained_while_the_second_was_trained(run: Callable[..., Run]) -> None:
    (row,) = plasticity([run()]).to_dict("records")
    assert row["seed"] == 7
    assert row["forgetting"] == pytest.approx(1.0)
    assert (row["first"], row["second"]) == (2.0, 1.8)


def test_relearning_ends_where_the_line_between_two_validations_meets_the_loss_from_before(run: Callable[..., Run]) -> None:
    (row,) = plasticity([run()]).to_dict("records")
    # From 2.4 at 9 quarters to 1.9 at 10: 2.0 is four fifths of the way.
    assert row["tokens_to_relearn"] == pytest.approx((1 + 0.8) * PHASE / 4)


def test_what_was_not_forgotten_takes_no_tokens_and_what_does_not_come_back_has_none(run: Callable[..., Run]) -> None:
    kept = run(LOSSES | {8: (1.9, 1.8)})
    lost = run(LOSSES | {10: (2.3, 2.0), 12: (2.1, 2.0)})
    frame = plasticity([kept, lost])
    assert frame["tokens_to_relearn"][0] == 0
    assert frame["tokens_to_relearn"].isna().tolist() == [False, True]
    assert frame["forgetting"][0] == pytest.approx(-0.1)


def test_a_phase_is_counted_in_batches_and_not_in_steps(run: Callable[..., Run]) -> None:
    settings = {"data.init_args.switch_every": 8, "trainer.accumulate_grad_batches": 2}
    assert plasticity([run(**settings)])["forgetting"][0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"data.init_args.switch_every": None}, "trained on one text alone"),
        ({"data.init_args.switch_every": 5}, "ended before its third phase, at 24,576 of 30,720 tokens"),
        ({"data.init_args.switch_every": 3}, "was not validated at 6,144 tokens"),
    ],
)
def test_a_run_that_cannot_be_read_is_refused(run: Callable[..., Run], settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        plasticity([run(**settings)])
