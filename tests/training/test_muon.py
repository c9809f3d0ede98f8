"""Muon and AdamW as one optimizer: two optimizers' steps, one projection, one state."""

import copy
from pathlib import Path

import pytest
import torch

from ngpt_lab.errors import InputError
from ngpt_lab.models import NGPT, Dims, Nemotron
from ngpt_lab.nn.linear import weight_error
from ngpt_lab.training import AdamW, Muon, NormalizeWeights
from ngpt_lab.training.optimizers import parameter_kinds

DIMS = Dims(64, 16, 2, 2, 2, 8, 32)
MUON = str(Path(__file__).parents[2] / "configs" / "optimizer" / "muon.yaml")


def loss_of(model, step):
    ids = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(step))
    return model(ids[:, :-1], ids[:, 1:])


def backward(model, step):
    model.zero_grad()
    loss = loss_of(model, step)
    loss.backward()
    return loss


@pytest.mark.parametrize("model", [NGPT, Nemotron])
def test_it_steps_as_torch_s_two_optimizers_do_and_a_schedule_drives_both(model):
    torch.manual_seed(0)
    ours = model(DIMS)
    theirs = copy.deepcopy(ours)
    one = Muon(lr=1e-2, weight_decay=0.1, scale_lr=3e-2).build(ours)
    kinds = parameter_kinds(theirs)
    matrices = [p for p in theirs.parameters() if kinds.get(id(p)) == "matrix"]
    rest = [p for p in theirs.parameters() if kinds.get(id(p)) != "matrix"]
    two = [
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        AdamW(lr=1e-2, weight_decay=0.1, scale_lr=3e-2).over(theirs, rest),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, lambda step: 1 / (1 + step)) for each in (one, *two)]
    for step in range(4):
        loss = one.step(lambda step=step: backward(ours, step))
        assert torch.equal(loss, backward(theirs, step))
        for each in two:
            each.step()
        for schedule in schedules:
            schedule.step()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    assert {group["name"] for group in one.param_groups} >= {"muon", "decayed"}
    assert len(matrices) == 2 * 6, "the matrices of the blocks alone are Muon's"


def test_one_step_is_one_projection():
    torch.manual_seed(0)
    model, calls = NGPT(DIMS), []
    optimizer = Muon(lr=1e-2).build(model)
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    NormalizeWeights().attach(optimizer, model, lambda: 1)
    optimizer.step(lambda: backward(model, 0))
    assert calls == [1]
    assert weight_error(model) <= 2e-6


def test_from_its_state_it_goes_on_exactly():
    torch.manual_seed(0)
    model = NGPT(DIMS)
    optimizer = Muon(lr=1e-2).build(model)
    for step in range(2):
        optimizer.step(lambda step=step: backward(model, step))
    again = copy.deepcopy(model)
    resumed = Muon(lr=1e-2).build(again)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in (2, 3):
        optimizer.step(lambda step=step: backward(model, step))
        resumed.step(lambda step=step: backward(again, step))
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_where_no_matrix_is_trained_it_is_refused():
    model = Nemotron(DIMS).requires_grad_(False)
    with pytest.raises(InputError, match="none is trained: use AdamW"):
        Muon().build(model)


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_a_run_with_it_learns_and_goes_on_from_its_checkpoint_as_if_nothing_had_happened(fit, read, model, cut_back):
    whole = fit(model, "-c", MUON, "--checkpoint.every_n_train_steps=6", "--trainer.log_every_n_steps=1")
    losses = read["losses"](whole)
    assert losses[-1] < losses[0] - 0.3
    cut_back(whole, 6)
    fit(model, "-c", MUON, "--checkpoint.every_n_train_steps=6", "--trainer.log_every_n_steps=1", "--ckpt_path=last")
    assert read["losses"](whole) == losses
