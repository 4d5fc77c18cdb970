"""Keys, a server and nodes in real processes give the simulation's numbers, in groups, too."""

import numpy as np
import pytest
import torch
from support.machines import Site

import fedjoint
from fedjoint.config.load import check, load
from fedjoint.runs.directory import RunDir
from fedjoint.runs.states import States

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SCENARIO = """
name = "clinics"
rounds = 2
strategy.name = "pcgrad"  # which has clients tell their two tasks apart
[data]
partition = "natural"
outputs = { ill = 3 }
[data.source]
name = "csv"
[data.source.options]
path = "all.csv"
client_column = "clinic"
targets = { ill = "multiclass", stay = "regression" }
[model.groups.narrow]
clients = [0, 2]
backbone = { name = "mlp", options = { hidden = [8] } }
[model.groups.wide]
clients = [1, 3]
backbone = { name = "mlp", options = { hidden = [32, 16] } }
[evaluate]
every = 2
[engine]
min_nodes = 2
"""


def write(path, clinics):
    rng = np.random.default_rng(0)
    lines = ["clinic,age,weight,pulse,ill,stay"]
    for clinic in "abcd":
        x = rng.normal(size=(40, 3))
        ill = np.digitize(x @ [1, -1, 0.5], [-0.5, 0.5])
        rows = [
            f"{clinic},{a:.4f},{w:.4f},{p:.4f},{i},{a - p:.4f}"
            for (a, w, p), i in zip(x, ill, strict=True)
        ]
        lines += rows if clinic in clinics else []
    path.write_text("\n".join(lines) + "\n")


def test_same_numbers_with_keys_and_nobody_else(tmp_path):
    for name, clinics in (("all", "abcd"), ("west", "ab"), ("east", "cd")):
        write(tmp_path / f"{name}.csv", clinics)
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    config = load(tmp_path / "scenario.toml") | {"output": {"dir": str(tmp_path / "simulated")}}
    config["data"]["source"]["options"]["path"] = str(tmp_path / "all.csv")
    config["engine"]["name"] = "inline"
    config["engine"]["min_nodes"] = 1
    simulated = fedjoint.simulate(check(config))

    with Site(tmp_path) as site:
        site.start("keys", "keys", "keys", "--host", "localhost", "--nodes", "west,east")
        site.start("evil", "keys", "evil", "--host", "localhost", "--nodes", "mallory")
        assert site.finish("keys") == 0 and site.finish("evil") == 0
        (tmp_path / "evil/nodes/mallory/ca.pem").write_bytes(
            (tmp_path / "keys/server/ca.pem").read_bytes()
        )
        site.server("--keys", "keys")
        site.until(lambda: "registered node west" in site.log("server"))
        for name, clients in (("west", "0,1"), ("east", "2,3")):
            data = tmp_path / f"{name}.csv"
            site.node(name, clients, "--keys", f"keys/nodes/{name}", "--data", data)
        site.node("mallory", "9", "--keys", "evil/nodes/mallory", "--data", data)
        site.deploy("deploy", "scenario.toml", "--keys", "keys")
        assert site.finish("deploy") == 0, site.log("deploy")
        assert "does not know this node's key" in site.log("mallory")

    run = RunDir.open(site.run)
    assert {node["name"] for node in run.nodes()} == {"west", "east"}
    backbone = run.final().backbone
    for name, tensor in simulated.backbone.items():
        torch.testing.assert_close(backbone[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    ours, theirs = simulated.records[-1], run.records()[-1]
    assert theirs.clients.ids == (0, 1, 2, 3)
    for task, value in ours.evaluation["test"].items():
        assert theirs.evaluation["test"][task] == pytest.approx(value, abs=1e-5)

    # Heads: on their nodes, the same as in simulation, and nowhere else.
    heads = simulated.heads()
    for name, clients in (("west", [0, 1]), ("east", [2, 3])):
        states = States(tmp_path / name / f"{run.path.name}.sqlite", run.id)
        newest = states.newest()
        assert list(newest) == clients
        for client, state in states.read(clients, list(newest.values())).items():
            for key, tensor in state.items():
                torch.testing.assert_close(heads[client][key], tensor, rtol=1e-5, atol=1e-6)
    assert not run.state.exists()
    assert not any("heads" in name for name in backbone)
