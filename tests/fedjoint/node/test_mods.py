"""Flower's own mods on a node: what they do to each client's update."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp.mod import LocalDpMod, arrays_size_mod, message_size_mod
from support.states import RUN

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.flower.compat import be_server, number
from fedjoint.node.mods import Mods, load_mods
from fedjoint.node.node import Node
from fedjoint.problem import build_problem
from fedjoint.protocol.requests import TRAIN, Asked, Header, TrainRequest
from fedjoint.protocol.training import Terms, TrainReply

CONFIG = check(
    {
        "data": {"clients": 3, "task_mix": [["digit"]]},
        "model": {"backbone": {"options": {"hidden": [8]}}},
        "local": {"steps": 3, "optimiser": {"lr": 0.5}},
    }
)
CONTEXT = Context(1, 1, {}, RecordDict(), {})


def trained(*mods, method="joint", reduce=False):
    """Return what the server reads of a node whose clients' updates pass ``mods``."""
    own = Mods({str(i): mod for i, mod in enumerate(mods)}, CONTEXT) if mods else None
    node = Node(build_problem(CONFIG), CONFIG, None, mods=own)
    trainer = node.rooms[""].trainer
    state, clients = trainer.model.state_dict(), np.arange(3)
    tasks = np.ones((3, 1), bool)
    asked = Asked(clients, np.ones(3), np.array([0]), np.array([3]), tasks)
    request = TrainRequest(
        header=Header("run", RUN, {}, 1, 0, 0, 0, method, {}, 60.0),
        group="",
        backbone={name: state[name] for name in trainer.layout.shapes},
        broadcast={},
        asked=asked,
        rounds=np.zeros(3, np.int64),
        sampled=np.zeros(3, bool),
        reduce=reduce,
    )
    be_server()
    (message,) = number([Message(request.pack(), 1, TRAIN)])
    reply = Message(node.handle(message), reply_to=message)
    terms = Terms(trainer.layout, ("digit",), reduce, True, CONFIG.strategy.compression)
    return TrainReply.unpack(reply, asked, np.zeros(3, bool), terms)


def halved(message, context, call_next):
    """Go half of the way: the mean of what was sent and what was learnt."""
    before = message.content["arrays"].to_numpy_ndarrays()
    reply = call_next(message, context)
    learnt = reply.content["arrays"]
    pairs = zip(learnt, before, learnt.to_numpy_ndarrays(), strict=True)
    arrays = {name: Array((old + new) / 2) for name, old, new in pairs}
    assert reply.content["metrics"]["num-examples"] > 0
    reply.content["arrays"] = ArrayRecord(arrays)
    return reply


def test_updates_are_clipped_by_flower_s_own_mod():
    plain = trained().rows
    lengths = np.linalg.norm(plain, axis=1)
    bound = float(np.sort(lengths)[1])  # one update is longer
    found = trained(LocalDpMod(bound, sensitivity=0.0, epsilon=1.0, delta=0.1)).rows
    expected = plain * np.minimum(1, bound / lengths)[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_noise_has_the_deviation_that_the_mod_is_for():
    wanted = 2.0 * np.sqrt(2 * np.log(1.25 / 0.1)) / 4.0
    found = trained(LocalDpMod(1e6, sensitivity=2.0, epsilon=4.0, delta=0.1)).rows
    assert np.std(found - trained().rows) == pytest.approx(wanted, rel=0.1)


def test_mods_that_look_on_change_nothing_and_several_follow_one_another():
    plain = trained().rows
    np.testing.assert_allclose(trained(message_size_mod, arrays_size_mod).rows, plain, atol=1e-6)
    np.testing.assert_allclose(trained(halved, halved).rows, plain / 4, atol=1e-6)


def test_sums_are_of_what_comes_out():
    plain, found = trained(reduce=True).rows, trained(halved, reduce=True).rows
    np.testing.assert_allclose(found, plain / 2, atol=1e-6)


def test_a_mod_that_fails_is_a_failure_of_each_client_by_name():
    def fails(message, context, call_next):
        raise ValueError("no such thing")

    def refuses(message, context, call_next):
        return Message(Error(code=0, reason="not today"), reply_to=message)

    def forgets(message, context, call_next):
        return Message(RecordDict({"arrays": ArrayRecord()}), reply_to=message)

    for mod, says in [(fails, "no such thing"), (refuses, "not today"), (forgets, "has no back")]:
        reply = trained(mod)
        assert not reply.reports.good.any()
        assert [each.client for each in reply.failed] == [0, 1, 2]
        assert all(says in each.reason and "mods 0" in each.reason for each in reply.failed)


def test_what_passes_by_the_mods_is_refused():
    mods = Mods({"dp.py:limit": halved}, CONTEXT)
    with pytest.raises(UserError, match=r"mods \(dp.py:limit\) see .* scaffold sends control"):
        mods.check("scaffold", ["control"])
    mods.check("joint", [])


def test_mods_by_reference(tmp_path):
    (tmp_path / "dp.py").write_text(
        "from flwr.clientapp.mod import LocalDpMod\nlimit = LocalDpMod(1.0, 0.0, 1.0, 0.1)\n"
    )
    (mod,) = load_mods([f"{tmp_path / 'dp.py'}:limit"]).values()
    assert mod.clipping_norm == 1.0
    assert load_mods(["flwr.clientapp.mod:message_size_mod"])
    with pytest.raises(UserError, match="LocalDpMod: it is no function or object to call: make"):
        load_mods(["flwr.clientapp.mod:LocalDpMod"])
    with pytest.raises(UserError, match="message_size_mod"):
        load_mods(["flwr.clientapp.mod:message_size"])
