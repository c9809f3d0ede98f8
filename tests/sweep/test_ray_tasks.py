"""What a Ray cluster cannot give; Ray itself is made up."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.sweep.claims import Claims
from ngpt_lab.sweep.ray_tasks import Ray
from ngpt_lab.sweep.sites import Demand

GIB = 2**30


class MadeRay(ModuleType):
    """A cluster of some nodes, as `ray.nodes` tells of them."""

    def __init__(self, *nodes: dict[str, float], dead: tuple[dict[str, float], ...] = ()) -> None:
        super().__init__("ray")
        self.told = [{"Alive": True, "Resources": node} for node in nodes]
        self.told += [{"Alive": False, "Resources": node} for node in dead]
        self.open = False
        self.asked: dict[str, Any] = {}

    def init(self, **_: object) -> None:
        self.open = True

    def shutdown(self) -> None:
        self.open = False

    def nodes(self) -> list[dict[str, Any]]:
        return self.told

    def remote(self, **asked: Any) -> Callable[[object], object]:
        if "CPU" in asked.get("resources", {}):
            raise ValueError("Use the 'num_cpus' keyword\ninstead")
        self.asked = asked
        return lambda function: function


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MadeRay:
    made = MadeRay(
        {"CPU": 8.0, "memory": 16.0 * GIB, "node:a": 1.0},
        {"CPU": 4.0, "GPU": 2.0, "memory": 64.0 * GIB, "h100": 1.0},
        dead=({"CPU": 64.0, "GPU": 8.0},),
    )
    monkeypatch.setitem(sys.modules, "ray", made)
    return made


@pytest.mark.parametrize(
    ("settings", "more", "told"),
    [
        ({"gpus": 4}, {}, "executor.gpus: a run asks for 4 of GPU, and no node of the Ray cluster has more than 2"),
        ({}, {"accelerator": "gpu", "devices": 3}, "executor.gpus: a run asks for 3 of GPU"),
        ({"cpus": 9}, {}, "executor.cpus: a run asks for 9 of CPU, and no node of the Ray cluster has more than 8"),
        ({"memory_gb": 65}, {}, "executor.memory_gb: a run asks for"),
        ({"resources": {"a100": 1}}, {}, "executor.resources.a100: a run asks for 1 of a100, .* more than 0"),
        ({"cpus": 8, "gpus": 1}, {}, "has all that a run asks for .CPU 8, GPU 1."),
        ({"resources": {"CPU": 1}}, {}, "Ray does not take what a run asks for: Use the 'num_cpus' keyword instead"),
    ],
)
def test_what_no_node_has_is_refused_by_name_before_anything_waits_for_it(
    settings: dict[str, Any], more: dict[str, Any], told: str, cluster: MadeRay, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=told) as problem:
        Ray(**settings).open(Demand(tmp_path, 3, **more), Claims(tmp_path / "claims"))
    assert "\n" not in str(problem.value)
    assert not cluster.open


def test_what_a_node_that_others_are_on_has_is_waited_for(cluster: MadeRay, tmp_path: Path) -> None:
    site = Ray(cpus=2, gpus=0.5, memory_gb=64, resources={"h100": 1})
    with site.open(Demand(tmp_path, 3, devices=2), Claims(tmp_path / "claims")) as executor:
        assert cluster.open
        assert executor.slots == 3
    assert not cluster.open
    wanted = {"num_cpus": 4, "num_gpus": 0.5, "memory": 64 * GIB, "resources": {"h100": 1}}
    assert cluster.asked == {"max_retries": -1, **wanted}
