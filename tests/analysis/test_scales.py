"""Scales over training, as a real run wrote them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ngpt_lab.analysis.scales import scale_history, scale_summary, scales_of
from ngpt_lab.errors import InputError
from ngpt_lab.interop.trained import load_trained
from ngpt_lab.training.telemetry import named_scales

CONFIGS = Path(__file__).parents[2] / "configs"
Train = Callable[..., Path]
KEYS = ["scale", "layer", "channel"]


@pytest.fixture(scope="module")
def run(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with scalar and vector scales."""
    files = [CONFIGS / "model" / "ngpt.yaml", CONFIGS / "ablation" / "scalar_s_qk.yaml"]
    return train(tmp_path_factory.mktemp("runs") / "ngpt", *files)


def test_the_history_ends_with_the_scales_of_the_checkpoint(run: Path):
    history, decoder = scale_history(run), load_trained(run).decoder
    assert sorted(history["step"].unique()) == [3, 6]
    last = history[history["step"] == 6].groupby(["scale", "layer"])["value"].apply(list)
    for name, value in named_scales(decoder):
        scale, _, layer = name.partition("/")
        assert last[scale, int(layer or -1)] == value.tolist()
    assert len(last) == len(list(named_scales(decoder)))
    pd.testing.assert_frame_equal(
        history[history["step"] == 6][["scale", "layer", "channel", "value"]].sort_values(KEYS, ignore_index=True),
        scales_of(decoder).sort_values(KEYS, ignore_index=True),
    )


def test_every_row_says_where_its_value_stands(run: Path):
    history = scale_history(run)
    assert not history.duplicated(["step", *KEYS]).any()
    assert set(history["scale"]) == {"attention_alpha", "mlp_alpha", "s_qk", "s_u", "s_z"}
    channels = history[history["step"] == 3].groupby(["scale", "layer"])["channel"].agg(["min", "max"])
    assert channels.loc[("attention_alpha", 1)].to_list() == [0, 63]
    assert channels.loc[("s_qk", 0)].to_list() == [0, 0]
    assert channels.loc[("s_z", -1)].to_list() == [0, 255]


def test_the_summary_is_that_of_the_entries():
    values = [-2.0, -1.0, 0.5, 1.5, 3.0]
    history = pd.DataFrame({"step": 7, "scale": "mlp_alpha", "layer": 2, "channel": range(5), "value": values})
    alone = pd.DataFrame({"step": [7], "scale": ["s_z"], "layer": [-1], "channel": [0], "value": [4.0]})
    summary = scale_summary(pd.concat([history, alone])).set_index("scale")
    assert summary.loc["mlp_alpha", ["step", "layer"]].to_list() == [7, 2]
    found = summary.loc["mlp_alpha", ["mean", "mean_abs", "std", "negative", "q05", "q50", "q95"]].to_list()
    assert found == pytest.approx([0.4, 1.6, np.std(values), 0.4, *np.quantile(values, [0.05, 0.5, 0.95])])
    assert summary.loc["s_z", ["mean", "std", "negative", "q05", "q95"]].to_list() == [4, 0, 0, 4, 4]


def test_a_run_without_scales_has_an_empty_history_and_summary(tmp_path: Path):
    (tmp_path / "run.json").write_text("{}")
    history = scale_history(tmp_path)
    assert list(history.columns) == ["step", "scale", "layer", "channel", "value"]
    assert history.empty
    assert scale_summary(history).empty


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path):
    with pytest.raises(InputError, match=r"is not a run's folder: it has neither run\.json nor scales"):
        scale_history(tmp_path / "nowhere")
    (tmp_path / "scales").mkdir()
    (tmp_path / "scales" / "step-000003.safetensors").write_bytes(b"half a fi")
    with pytest.raises(InputError, match=r"step-000003\.safetensors is not a file of scales that can be read"):
        scale_history(tmp_path)
