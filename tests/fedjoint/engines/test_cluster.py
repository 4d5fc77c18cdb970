"""Ray clusters of several machines, and GPUs that Ray is told of."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PLACE = """
import json, sys
import ray
from ray.cluster_utils import Cluster
from flwr.clientapp import ClientApp
from fedjoint.config.schema import EngineConfig
from fedjoint.engines.ray import RayGrid, Workers

cluster = Cluster()
for _ in range(2):
    cluster.add_node(num_cpus=2, num_gpus={gpus}, include_dashboard=False)
cluster.wait_for_nodes()
config = EngineConfig(address=cluster.address, **json.loads(sys.argv[1]))

workers = Workers(config)
grid = RayGrid(workers, ClientApp)
places = []
for actor in workers.actors.values():
    found = ray.get(actor.__ray_call__.remote(
        lambda worker: (ray.get_runtime_context().get_node_id(), ray.get_gpu_ids())
    ))
    places.append(found)
print(json.dumps({{"places": places, "gpus": workers.gpus}}))
workers.close()
ray.shutdown()
cluster.shutdown()
"""


def place(gpus, **engine):
    """Return ``(machine, [gpu])`` of every worker on two machines with 2 CPUs and ``gpus``."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PLACE.format(gpus=gpus)), json.dumps(engine)],
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_workers_spread_over_the_machines_of_a_cluster():
    places = place(0)["places"]
    assert len(places) == 4
    machines = [machine for machine, _ in places]
    assert sorted(machines.count(machine) for machine in set(machines)) == [2, 2]


def test_two_workers_share_each_gpu():
    found = place(1, workers_per_gpu=2, cpus_per_worker=1)
    assert found["gpus"] == 0.5
    assert len(found["places"]) == 4
    gpus = [(machine, tuple(ids)) for machine, ids in found["places"]]
    assert sorted(gpus.count(gpu) for gpu in set(gpus)) == [2, 2]
    assert all(len(ids) == 1 for _, ids in gpus)


def test_a_run_on_a_cluster_equals_one_in_process(tmp_path):
    script = """
    import sys
    import torch
    from ray.cluster_utils import Cluster
    import fedjoint
    from fedjoint.config.scenario import scenario_config

    if __name__ == "__main__":
        cluster = Cluster()
        for _ in range(2):
            cluster.add_node(num_cpus=1, include_dashboard=False)
        cluster.wait_for_nodes()
        few = ["rounds=2", "data.clients=6", f"output.dir={sys.argv[1]}"]
        here = fedjoint.simulate(scenario_config("digits", few, engine__name="inline"))
        there = fedjoint.simulate(scenario_config("digits", few, engine__address=cluster.address))
        assert all(torch.equal(t, there.backbone[n]) for n, t in here.backbone.items())
        assert {n["name"] for n in fedjoint.runs.directory.RunDir.open(there.path).nodes()} == {
            "worker 0", "worker 1"
        }
    """
    path = tmp_path / "run.py"
    path.write_text(textwrap.dedent(script), "utf-8")
    done = subprocess.run(
        [sys.executable, str(path), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
