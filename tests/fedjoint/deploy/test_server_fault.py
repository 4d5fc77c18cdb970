"""The server of a deployment is killed, and the run resumed."""

import pytest
import torch
from support.machines import Site

import fedjoint
from fedjoint.config.scenario import scenario_config
from fedjoint.runs.directory import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_killed_server_costs_nothing(tmp_path):
    settings = [
        "data.clients=6",
        "local.epochs=1",
        "evaluate.every=1000",
        "engine.min_nodes=2",
        "rounds=3",
        "output.checkpoint_every=1",
    ]
    alone = [*settings, "engine.min_nodes=1", f"output.dir={tmp_path / 'alone'}"]
    whole = fedjoint.simulate(scenario_config("digits", alone, engine__name="inline"))
    with Site(tmp_path) as site:
        site.server()
        site.node("a", "0,1,2")
        site.node("b", "3,4,5")
        site.deploy("deploy", "digits", *(word for s in settings for word in ("--set", s)))
        site.until(lambda: site.records() and "round 1: checkpoint" in site.told())
        site.kill("server")
        assert site.finish("deploy") == 2
        assert f"fedjoint deploy --resume {site.run.relative_to(tmp_path)}" in site.log("deploy")
        assert len(site.records()) < 3
        site.server()
        site.deploy("again", "--resume", site.run)
        assert site.finish("again") == 0, site.log("again")
        assert "resume: round 2 is next" in site.told()
    run = RunDir.open(site.run)
    assert [record.round for record in run.records()] == [1, 2, 3]
    assert all(record.clients.trained == 6 for record in run.records())
    assert "by client: 0: 3, 1: 3, 2: 3, 3: 3, 4: 3, 5: 3" in site.log("again")
    for name, tensor in run.final().backbone.items():
        torch.testing.assert_close(whole.backbone[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
