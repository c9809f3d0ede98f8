"""What a step costs is told for the condition under which it was measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.analysis.step_costs import read_step_costs, seconds_by_condition
from ngpt_lab.errors import InputError


def measured(seconds: float, **condition: Any) -> dict[str, Any]:
    return {
        "condition": {key.replace("__", "."): value for key, value in condition.items()},
        "arms": {"a": {"seconds": [seconds]}},
    }


SHORT, LONG = measured(1.0, data__init_args__seq_len=256, x__on=True), measured(2.0, data__init_args__seq_len=25, x__on=True)


@pytest.mark.parametrize("end", ["seq_len", "data.seq_len"])
def test_a_condition_is_found_however_much_of_its_keys_a_row_names(end: str) -> None:
    found = seconds_by_condition([LONG, SHORT], [f"{end}=256; on=true", f"{end}=25; x.on=true", f"{end}=2; on=true"] * 2)
    assert found == {f"{end}=256; on=true": {"a": [1.0]}, f"{end}=25; x.on=true": {"a": [2.0]}}


def test_one_measurement_belongs_to_one_condition_and_to_none_of_several() -> None:
    alone = {"arms": {"a": {"seconds": [1.0]}}}
    assert seconds_by_condition([alone], ["k=1", "k=1"]) == {"k=1": {"a": [1.0]}}
    assert seconds_by_condition([alone], ["k=1", "k=2"]) == {}
    assert seconds_by_condition([alone], ["k=1", ""]) == {"": {"a": [1.0]}}
    assert seconds_by_condition([], ["k=1"]) == {}


@pytest.mark.parametrize(
    "content", [{}, {"arms": {"a": 1}}, {"arms": {"a": {"seconds": ["x"]}}}, {"conditions": [SHORT, SHORT | {"condition": 3}]}]
)
def test_seconds_that_cannot_be_read_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "step_cost.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="needs the seconds of the same number of rounds"):
        read_step_costs(tmp_path / "step_cost.json")
    assert read_step_costs(tmp_path / "none.json") == ()
