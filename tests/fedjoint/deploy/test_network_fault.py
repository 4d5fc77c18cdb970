"""The network to a node of a deployment is cut, and restored."""

import pytest
from support.machines import Site, Wire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SETTINGS = ["data.clients=4", "local.epochs=1", "evaluate.every=1000", "rounds=1000"]


def test_a_node_is_cut_off_and_comes_back(tmp_path):
    with Site(tmp_path) as site:
        site.server()
        wire = Wire(site.address)
        site.node("a", "0,1")
        site.node("b", "2,3", server=wire.address)
        site.deploy("deploy", "digits", *(word for s in SETTINGS for word in ("--set", s)))
        site.until(lambda: site.trained(2, after=1))
        wire.cut()
        cut = site.last()
        lost = site.until(lambda: site.without(2, after=cut))[0]
        assert lost["clients"]["ids"] == [0, 1]
        assert {said.partition(":")[0] for said in site.failures(2, after=cut)} <= {"b"}
        wire.restore()
        restored = site.last()
        site.until(lambda: site.trained(2, after=restored + 1))
