"""Activation checkpointing as a setting of a run."""

import pytest


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_a_run_that_computes_activations_again_has_the_same_losses(fit, read, model):
    steps = ["--trainer.max_steps=4", "--trainer.log_every_n_steps=1"]
    whole = fit(model, *steps, name="whole")
    some = ["--model.activation_checkpointing=SelectiveCheckpointing", "--model.activation_checkpointing.every=2"]
    assert read["losses"](fit(model, *steps, *some, name="some")) == read["losses"](whole)


def test_a_wrong_every_is_told_in_a_sentence(refused, command, tmp_path):
    wrong = ["--model.activation_checkpointing=FullCheckpointing", "--model.activation_checkpointing.every=0"]
    assert "activation_checkpointing.every is 0" in refused(command(tmp_path / "run", "ngpt", *wrong))
