"""A sweep through a real Ray cluster, a node of which dies."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    # What its nodes start inherits this.
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


def test_a_run_whose_node_dies_goes_on_on_another_and_the_sweep_comes_to_what_it_comes_to_on_one_machine(
    cluster: Any, spec: Path, local: Any, tools: dict[str, Any], tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)
    doomed = cluster.add_node(num_cpus=1)
    sweep, until = tools["Sweep"](spec, tmp_path / "out"), tools["until"]
    with sweep.served("--executor", "ray", "--executor.address", cluster.address) as process:
        until(lambda: (sweep.folder / "sweep.json").exists() or process.poll() is not None)
        (sweep.folder / "hold").touch()
        until(lambda: len(sweep.held) == 2 or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        held = set(sweep.held)
        cluster.remove_node(doomed, allow_graceful=False)
        cluster.add_node(num_cpus=10)  # room for its run, and for all that waited before
        # Let go at once, its run might come to its end before its process hears that the node is gone.
        until(lambda: any(len(sweep.starts(run)) > 1 for run in held) or process.poll() is not None, 120)
        (sweep.folder / "hold").unlink()
        told, _ = process.communicate(timeout=900)
    assert process.returncode == 0, told

    tools["assert_same"](sweep, local)
    begun = {run.name: [start["step"] for start in sweep.starts(run.name)] for run in sweep.runs}
    again = [name for name, steps in begun.items() if steps == [0, 20]]
    assert len(again) == 1
    assert again[0] in held
    assert all(steps == [0] for name, steps in begun.items() if name not in again)
