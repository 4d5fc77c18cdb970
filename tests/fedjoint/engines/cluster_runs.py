"""Run on a cluster of four machines and in one process, and print what was found as JSON."""

import dataclasses
import json
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

import ray
import torch
from ray._private.state import actors
from ray.cluster_utils import Cluster

import fedjoint
from fedjoint import engines
from fedjoint.config.load import check
from fedjoint.engines import combining
from fedjoint.engines.base import make_engine
from fedjoint.runs.directory import RunDir

FAILING = """
from fedjoint.training.method import LocalMethod


class Failing(LocalMethod):
    '''Fails for client 3.'''

    def train(self, job):
        if 3 in job.cohort.clients:
            raise ValueError("no luck")
        return super().train(job)
"""

#: name -> settings; the tree of each is used for rows of any size, but where it says so
RUNS = {
    "means": {},
    "few at a time": {},
    "all are at work": {},
    "small rows": {},
    "weights by task": {"strategy": {"weight_by": "task", "max_share": 0.05}},
    "deviations": {"strategy": {"name": "pcgrad"}},
    "scaled down": {"strategy": {"name": "pcgrad", "clip": 0.5}},
    "several backbones": {
        "strategy": {"name": "recon", "options": {"after": 1, "share": 1.0}},
    },
    "rows of clients": {"strategy": {"name": "krum"}},
    "a worker dies": {},
    "a machine dies": {},
    "a machine dies as replies arrive": {},
}


class Gathered(logging.Handler):
    """Keeps how many rows arrived in each round, and of how many bytes."""

    def __init__(self):
        super().__init__()
        self.rows, self.bytes = [], []

    def emit(self, record):
        details = getattr(record, "details", {})
        if details.get("event") == "gathered":
            self.rows.append(details["rows"])
            self.bytes.append(details["bytes"])


def settings(folder, engine, name):
    more = RUNS[name]
    local = {"epochs": 1, "pack": 1, "optimiser": {"lr": 0.05}}
    if name == "weights by task":
        local["method"] = f"{folder / 'failing.py'}:Failing"
    return check(
        {
            "rounds": 3,
            "data": {
                "clients": 40,
                "examples_per_client": 12,
                "task_mix": [["digit"], ["loop", "ink"]],
            },
            "model": {"backbone": {"options": {"hidden": [24, 8]}}},
            "local": local,
            "strategy": {"name": "fedavg", **more.get("strategy", {})},
            "diagnostics": {"clients": 4, "every": 2},
            "evaluate": {"every": 10},
            "engine": engine,
            "output": {"dir": str(folder / "runs"), "checkpoint_every": 1},
        }
    )


class Disaster:
    """Does something before the second call of a method of :class:`combining.Machines`."""

    def __init__(self, what):
        self.what, self.calls = what, 0

    def __call__(self, machines, *given):
        self.calls += 1
        if self.calls == 2:
            self.what(machines)
        return self.own(machines, *given)

    def before(self, method):
        self.own = getattr(combining.Machines, method)
        setattr(combining.Machines, method, lambda *given: self(*given))

    def over(self, method):
        setattr(combining.Machines, method, self.own)


def kill_worker(machines):
    actor = machines._workers.actors[1]
    os.kill(ray.get(actor.__ray_call__.remote(lambda worker: os.getpid())), signal.SIGKILL)


def kill_machine(cluster, machines):
    """Kill a machine with workers, but not the one that Ray's own head is on."""
    used = set(machines._of.values()) - {cluster.head_node.node_id}
    cluster.remove_node(next(n for n in cluster.list_all_nodes() if n.node_id in used))


def every_node_is_busy(machines):
    machines.busy = set(machines._of)


def run(cluster, folder, engine, name):
    """Return what is compared of a run on the cluster and in one process."""
    logger, gathered = logging.getLogger("fedjoint"), Gathered()
    combining.LEAST = 1 << 20 if name == "small rows" else 0
    combining._FAN = 2 if name == "few at a time" else 8
    disasters = {
        "all are at work": (every_node_is_busy, "sums"),
        "a worker dies": (kill_worker, "sums"),
        "a machine dies": (partial(kill_machine, cluster), "sums"),
        "a machine dies as replies arrive": (partial(kill_machine, cluster), "take"),
    }
    what, method = disasters.get(name, (lambda _: None, "sums"))
    disaster = Disaster(what)
    disaster.before(method)
    logger.addHandler(gathered)
    try:
        there = fedjoint.simulate(settings(folder, engine, name))
    finally:
        disaster.over(method)
        logger.removeHandler(gathered)
    inline = {"name": "inline", "blocks": engine["blocks"]}
    here = fedjoint.simulate(settings(folder, inline, name))
    pairs = [(there.backbone[n], tensor) for n, tensor in here.backbone.items()]
    run_dir = RunDir.open(there.path)
    return {
        "same": all(torch.equal(one, other) for one, other in pairs),
        "rows": gathered.rows,
        "bytes": gathered.bytes,
        "parameters": sum(tensor.numel() for tensor in here.backbone.values()),
        "backbones": there.records[-1].strategy.get("backbones", 1),
        "trained": [record.clients.trained for record in there.records],
        "diagnostics": there.records[1].diagnostics == here.records[1].diagnostics,
        "failed": [dataclasses.asdict(each) for each in there.records[0].clients.failed],
        "generation": run_dir.generation,
        "actors": alive(),
    }


def without_room(cluster, folder, engine):
    """Return why a run ends whose workers have no place left once a machine has died."""
    engines.ray._PLACES = 3.0
    disaster = Disaster(partial(kill_machine, cluster))
    disaster.before("sums")
    try:
        fedjoint.simulate(settings(folder, engine, "means"))
    except fedjoint.UserError as error:
        return str(error)
    finally:
        disaster.over("sums")
    return "it goes on"


def alive():
    """Return how many actors there are."""
    return sum(actor["State"] == "ALIVE" for actor in actors().values())


def main(folder):
    (folder / "failing.py").write_text(FAILING)
    logging.getLogger("fedjoint").setLevel(logging.DEBUG)
    cluster = Cluster()
    for _ in range(4):
        cluster.add_node(num_cpus=2, include_dashboard=False)
    cluster.wait_for_nodes()
    engine = {"name": "ray", "address": cluster.address, "workers": 4, "blocks": 13}
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    with make_engine(settings(folder, engine, "means").engine).session():
        found = {name: run(cluster, folder, engine, name) for name in RUNS}
    found["actors left"] = alive()
    found["no room"] = without_room(cluster, folder, engine)
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
