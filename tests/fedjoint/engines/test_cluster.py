"""Ray clusters of several machines, and GPUs that Ray is told of."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

import fedjoint
from fedjoint.config.scenario import scenario_config
from fedjoint.runs.directory import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("cluster")]

#: prints where workers are put on two machines of two CPUs and a GPU each, and runs there
SCRIPT = """
import json, sys
import ray
from ray.cluster_utils import Cluster
import fedjoint
from fedjoint.config.scenario import scenario_config
from fedjoint.config.schema import EngineConfig
from fedjoint.engines.ray import Workers


def where(worker):
    return ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()


def place(**engine):
    workers = Workers(EngineConfig(address=cluster.address, **engine))
    places = ray.get([actor.__ray_call__.remote(where) for actor in workers.actors.values()])
    workers.close()
    return {"places": places, "gpus": workers.gpus}


if __name__ == "__main__":
    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(num_cpus=2, num_gpus=1, include_dashboard=False)
    cluster.wait_for_nodes()
    found = {
        "without GPUs": place(gpus_per_worker=0),
        "with GPUs": place(workers_per_gpu=2, cpus_per_worker=1),
    }
    here = ["engine.gpus_per_worker=0", "engine.workers=2"]
    config = scenario_config("digits", [*sys.argv[1:], *here], engine__address=cluster.address)
    found["run"] = str(fedjoint.simulate(config).path)
    print(json.dumps(found))
    cluster.shutdown()
"""

FEW = ["rounds=2", "data.clients=6"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return ``(machine, [gpu])`` of every worker, and the run; a cluster takes its time."""
    folder = tmp_path_factory.mktemp("cluster")
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT), "utf-8")
    done = subprocess.run(
        [sys.executable, script, *FEW, f"output.dir={folder / 'there'}"],
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_workers_spread_over_the_machines_of_a_cluster(found):
    places = found["without GPUs"]["places"]
    assert len(places) == 4
    machines = [machine for machine, _ in places]
    assert sorted(machines.count(machine) for machine in set(machines)) == [2, 2]


def test_two_workers_share_each_gpu(found):
    shared = found["with GPUs"]
    assert shared["gpus"] == 0.5
    assert len(shared["places"]) == 4
    gpus = [(machine, tuple(ids)) for machine, ids in shared["places"]]
    assert sorted(gpus.count(gpu) for gpu in set(gpus)) == [2, 2]
    assert all(len(ids) == 1 for _, ids in gpus)


def test_a_run_on_a_cluster_equals_one_in_process(found, tmp_path):
    there = RunDir.open(found["run"])
    few = [*FEW, f"output.dir={tmp_path}"]
    here = fedjoint.simulate(scenario_config("digits", few, engine__name="inline"))
    assert all(torch.equal(t, there.final().backbone[n]) for n, t in here.backbone.items())
    assert {node["name"] for node in there.nodes()} == {"worker 0", "worker 1"}
