"""A step whose loss is not finite, or far above those before, is stopped at or left out, and its batches are named."""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from ngpt_lab.errors import InputError
from ngpt_lab.training.guard import LossGuard

Fit = Callable[..., Path]
Readers = dict[str, Callable[[Path], Any]]
Spoil = Callable[[dict[int, float]], None]
Watch = Callable[[Callback], None]
NAN = float("nan")
EVERY_STEP = ["--trainer.accumulate_grad_batches=3", "--checkpoint.every_n_train_steps=1", "--checkpoint.keep=3"]
SPIKES = ["--guard.spike_window=4", "--guard.spike_deviations=3"]


class States(Callback):
    """Keeps the weights and the optimizer's state after every step."""

    def __init__(self) -> None:
        self.after: dict[int, Any] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        kept = [pl_module.state_dict(), trainer.optimizers[0].state_dict()["state"]]
        self.after[trainer.global_step] = deepcopy(kept)


def tensors(state: Any) -> list[torch.Tensor]:
    weights, moments = state
    return [*weights.values(), *(value for values in moments.values() for value in values.values())]


def equal(one: Any, other: Any) -> bool:
    return all(map(torch.equal, tensors(one), tensors(other)))


def incidents(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "incidents.jsonl").read_text().splitlines()]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("factor", [NAN, float("inf")])
def test_a_run_stops_at_a_loss_that_is_not_finite_and_keeps_what_was(
    factor: float, fit: Fit, read: Readers, spoil: Spoil, tmp_path: Path
) -> None:
    spoil({13: factor})
    with pytest.raises(InputError, match=r"the loss is not finite at step 5 \(batches 12 to 14; .*incidents.jsonl"):
        fit("ngpt", *EVERY_STEP)
    folder = tmp_path / "run"
    assert record(folder)["status"] == "failed"
    assert "not finite at step 5" in record(folder)["error"]
    assert record(folder)["incidents"] == 1
    [incident] = incidents(folder)
    assert (incident["step"], incident["reason"], incident["done"], incident["loss"]) == (5, "not finite", "stopped", None)
    assert [batch["batch"] for batch in incident["batches"]] == [12, 13, 14]
    assert read["steps"](folder) == [2, 3, 4]
    assert [row["step"] for row in read["rows"](folder)] == [1, 2, 3, 4]
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


def test_a_run_that_stopped_goes_on_with_a_lower_learning_rate(fit: Fit, read: Readers, spoil: Spoil, tmp_path: Path) -> None:
    spoil({13: NAN})
    with pytest.raises(InputError, match="not finite"):
        fit("ngpt", *EVERY_STEP)
    spoil({13: 1 / 3})
    with pytest.raises(InputError, match="not finite at step 5"):  # the same again: it went on from step 4
        fit("ngpt", *EVERY_STEP, "--ckpt_path=last")
    folder = fit("ngpt", *EVERY_STEP, "--ckpt_path=last", "--guard.nonfinite=skip", "--model.optimizer.lr=1e-3")
    assert record(folder)["status"] == "finished"
    rates = {row["step"]: row["train/lr"] for row in read["rows"](folder) if "train/lr" in row}
    whole = fit("ngpt", *EVERY_STEP, "--guard.nonfinite=skip", "--model.optimizer.lr=1e-3", name="whole")
    asked = {row["step"]: row["train/lr"] for row in read["rows"](whole) if "train/lr" in row}
    assert {step: rates[step] for step in range(5, 13)} == {step: asked[step] for step in range(5, 13)}
    assert rates[4] == pytest.approx(2 * asked[4])
    # Why it was stopped, twice, outlives that it went on.
    assert [(incident["step"], incident["done"]) for incident in incidents(folder)] == [
        (5, "stopped"),
        (5, "stopped"),
        (5, "skipped"),
    ]


def test_a_run_that_stops_before_its_first_row_is_kept_with_what_tells_why(
    spoil: Spoil, read: Readers, fit: Fit, tmp_path: Path
) -> None:
    spoil({4: NAN})
    with pytest.raises(InputError, match="not finite at step 5"):
        fit("nemotron", "--trainer.log_every_n_steps=10", "--checkpoint.every_n_train_steps=2")
    folder = tmp_path / "run"
    assert not (folder / "metrics.jsonl").exists()
    assert read["steps"](folder) == [2, 4]
    assert (record(folder)["status"], len(incidents(folder))) == ("failed", 1)


def test_an_incident_lasts_through_a_loss_of_power(
    spoil: Spoil, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def watched(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    spoil({4: NAN})
    folder = fit("nemotron", "--guard.nonfinite=skip", "--checkpoint.every_n_train_steps=null")
    assert str(folder / "incidents.jsonl") in synced


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_a_step_that_is_left_out_changes_no_bit(model: str, fit: Fit, spoil: Spoil, watch: Watch) -> None:
    states = States()
    watch(states)
    spoil({13: NAN})
    folder = fit(model, *EVERY_STEP, "--guard.nonfinite=skip")
    assert equal(states.after[5], states.after[4])
    assert not equal(states.after[4], states.after[3])
    assert not equal(states.after[6], states.after[5])
    assert (record(folder)["status"], record(folder)["incidents"]) == ("finished", 1)
    assert incidents(folder)[0]["done"] == "skipped"


def test_a_gradient_that_is_not_finite_counts_as_well(fit: Fit, watch: Watch) -> None:
    class Breaks(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
            if trainer.global_step == 4:
                pl_module.backbone.embedding.weight.grad[0, 0] = float("inf")

    watch(Breaks())
    with pytest.raises(InputError, match=r"the gradient is not finite at step 5 \(batch 4;"):
        fit("nemotron")


def test_weights_that_are_not_finite_are_never_saved(fit: Fit, read: Readers, watch: Watch, tmp_path: Path) -> None:
    class Breaks(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                pl_module.backbone.embedding.weight.data[0, 0] = NAN

    watch(Breaks())
    with pytest.raises(InputError, match="the weights are not finite after step 3, and are not saved"):
        fit("nemotron", "--checkpoint.every_n_train_steps=1")
    assert read["steps"](tmp_path / "run") == [1, 2]
    assert record(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_a_spike_is_left_out_where_that_is_asked_for(model: str, fit: Fit, spoil: Spoil, watch: Watch) -> None:
    states = States()
    watch(states)
    spoil({7: 10.0})
    folder = fit(model, *SPIKES, "--guard.spike=skip")
    [incident] = incidents(folder)
    assert (incident["step"], incident["reason"], incident["done"]) == (8, "spike", "skipped")
    assert incident["loss"] > incident["mean"] + 3 * incident["deviation"]
    assert equal(states.after[8], states.after[7])
    assert not equal(states.after[9], states.after[8])


def test_a_spike_is_recorded_and_trained_on_by_default(fit: Fit, spoil: Spoil, watch: Watch) -> None:
    states = States()
    watch(states)
    spoil({7: 10.0})
    folder = fit("ngpt", *SPIKES)
    assert [(incident["step"], incident["done"]) for incident in incidents(folder)] == [(8, "recorded")]
    assert record(folder)["incidents"] == 1
    assert not equal(states.after[8], states.after[7])


def test_a_run_without_incidents_is_the_same_whatever_watches_it(fit: Fit, read: Readers) -> None:
    plain = fit("ngpt", "--guard.spike_deviations=null", name="plain")
    watched = fit("ngpt", "--guard.nonfinite=skip", *SPIKES, name="watched")
    assert read["timeless"](watched) == read["timeless"](plain)
    assert not (watched / "incidents.jsonl").exists()


def test_the_losses_before_a_spike_outlive_a_kill(
    fit: Fit, spoil: Spoil, tmp_path: Path, cut_back: Callable[[Path, int], None]
) -> None:
    spoil({8: 10.0})
    words = ["--guard.spike_window=7", "--guard.spike=skip", "--checkpoint.every_n_train_steps=6", "--checkpoint.keep=null"]
    folder = fit("ngpt", *words)
    before = incidents(folder)
    assert [incident["step"] for incident in before] == [9]
    cut_back(folder, 6)
    fit("ngpt", *words, "--ckpt_path=last")
    assert incidents(folder) == before  # neither lost nor doubled


def test_what_is_judged_later_is_judged_before_it_is_saved() -> None:
    class Later:
        step, batches = 5, range(4, 5)
        trainer = type("OfNoLoader", (), {"train_dataloader": None})

        def numbers(self) -> tuple[float, float]:
            return NAN, 1.0

    guard = LossGuard()
    guard._pending = Later()  # type: ignore[assignment]  (as on a GPU, between two steps)
    with pytest.raises(InputError, match="the loss is not finite at step 5"):
        guard.state_dict()


@pytest.mark.parametrize("wrong", [{"spike_window": 1}, {"spike_deviations": 0.0}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be at least 2"):
        LossGuard(**wrong)
