"""Nodes with data of their own, some of them wrong: the run goes on with the others."""

import json
import logging

import numpy as np
import pytest
import torch
from support.fleet import SETTINGS, Fleet, drop, forging, gone, honest, problem, send, silent, tell

from fedjoint._util.logs import JsonLines
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.protocol.requests import EVALUATE, PERSIST, QUERY, TRAIN, Header
from fedjoint.runs.directory import Checkpoint, RunDir
from fedjoint.runs.ledger import Ledger
from fedjoint.server.roster import Roster
from fedjoint.server.serve import serve

HEADER = Header("run", "a" * 32, SETTINGS, 0, 0, 0, 0, "joint", {}, 60.0)


@pytest.fixture
def config():
    return check(SETTINGS)


def run(config, tmp_path, fleet):
    run = RunDir.create(tmp_path, "run", config)
    serve(fleet, config, run, deployed=True)
    return run


def group(**values):
    return lambda told, records: told | {"groups": [told["groups"][0] | values]}


def big_layout(told, records):
    return group(layout={"backbone.w": [2**30, 2**30]})(told, records)


def nan(array):
    return np.full_like(array, np.nan)


INTRODUCTIONS = {
    "no name": (drop("name"), "'name': Field required"),
    "no device": (drop("device"), "'device': Field required"),
    "a layout that is a list": (group(layout=[1]), "'groups.0.layout': Input should be an object"),
    "a shape that is text": (group(layout={"w": "2"}), "'groups.0.layout.w': Input should be"),
    "a negative shape": (group(layout={"w": [-1]}), "'groups.0.layout.w.0': Input should be"),
    "a layout beyond all measure": (big_layout, "more than 17179869184"),
    "tasks that are null": (tell(tasks=None), "'tasks': Input should be"),
    "an unknown kind": (tell(tasks=[["digit", "magic", 10, []]]), "unknown kind of task 'digit'"),
    "another kind": (tell(tasks=[["digit", "multiclass", 11, []]]), "11 outputs there"),
    "a task twice": (tell(tasks=[["digit", "multiclass", 10, []]] * 2), "a task twice"),
    "a size too many": (tell(tasks=[["digit", "multiclass", 10, [3]]]), "which has no size"),
    "a giant size": (tell(tasks=[["digit", "tokens", 10, [2**40]]]), "beyond all measure"),
    "no width": (
        tell(tasks=[["digit", "segmentation", 10, [8, 0]]]),
        "give size = (height, width)",
    ),
    "maps of others": (tell(tasks=[["digit", "segmentation", 10, [8, 8]]]), "of size [8, 8] there"),
    "outputs of text": (
        tell(tasks=[["digit", "multiclass", "10", []]]),
        "'tasks.0.2': Input should",
    ),
    "ids beyond int64": (
        send("population", "ids", lambda i: i.astype(np.uint64) + np.uint64(2**63)),
        "'ids' is above",
    ),
    "an id twice": (send("population", "ids", lambda i: i * 0 + 3), "the id of another"),
    "another's client": (send("population", "ids", lambda i: i - 2), "lives on node good"),
    "negative sizes": (send("population", "sizes", lambda s: -s), "'sizes' is negative"),
    "a flat mask": (send("population", "mask", np.ravel), "'mask' has shape"),
    "buffers that are not there": (group(buffers=["ghost"]), "are not the last of"),
    "no group": (tell(groups=[]), "it has a group twice, none, or more than"),
    "a group that is a path": (group(name="a/b"), "a group has the name 'a/b'"),
    "a client of another group": (send("population", "member", lambda m: m + 1), "in a group that"),
    "another group": (group(name="wide"), "other tensors than its groups"),
    "another version": (None, "fedjoint 0.0 on the other side"),
}


BACKBONES = {
    "NaN": (send("backbone", "backbone.1.weight", nan), "is not finite"),
    "a row": (send("backbone", "backbone.1.weight", lambda w: w[:1]), "has shape"),
    "numbers": (send("backbone", "backbone.1.weight", lambda w: w.astype(int)), "of type int64"),
    "half": (
        lambda told, records: records["backbone"].pop("backbone.1.weight", None) is None or told,
        "other tensors than its layout",
    ),
}


@pytest.mark.parametrize("what", BACKBONES)
def test_no_run_starts_from_a_backbone_that_is_not_in_order(what, config):
    change, said = BACKBONES[what]
    first = forging(honest(config, [2, 3], "bad"), QUERY, change)
    roster = Roster(config, None, 0.0, deployed=True)
    roster.discover(Fleet({1: first, 5: honest(config, [0, 1], "good")}), HEADER)
    assert said in roster.refused[1] and roster.nodes.keys() == {5}
    state = problem().model(config).state_dict()
    for name, values in roster.initial.items():
        assert values.dtype == np.float32 and np.array_equal(values, state[name])


@pytest.mark.parametrize("what", INTRODUCTIONS)
def test_a_node_that_says_nonsense_of_itself_is_refused_and_the_others_train(
    what, config, tmp_path, monkeypatch
):
    change, said = INTRODUCTIONS[what]
    bad = honest(config, [2, 3], "bad")
    forged = forging(bad, QUERY, change) if change else older(bad, monkeypatch)
    fleet = Fleet({5: honest(config, [0, 1], "good"), 9: forged})
    done = run(config, tmp_path, fleet)
    assert [r.clients.ids for r in done.records()] == [(0, 1)] * 3
    states = {node["node"]: node["state"] for node in done.nodes()}
    assert states["5"] == "here" and states["9"].startswith("refused: ") and said in states["9"]
    assert "\n" not in states["9"]


def older(node, monkeypatch):
    def answer(message):
        (reply,) = node(message)
        reply.content["config"]["version"] = "0.0"
        return [reply]

    return answer


def test_the_first_node_alone_does_not_decide_what_the_backbone_is(config, tmp_path):
    def swapped(told, records):
        layout = dict(reversed(told["groups"][0]["layout"].items()))
        return group(layout=layout)(told, records)

    fleet = Fleet(
        {
            1: forging(honest(config, [3], "odd"), QUERY, swapped),
            5: honest(config, [0], "a"),
            7: honest(config, [1], "b"),
        }
    )
    done = run(config, tmp_path, fleet)
    assert [r.clients.ids for r in done.records()] == [(0, 1)] * 3
    assert "its backbone differs" in next(n["state"] for n in done.nodes() if n["node"] == "1")


def narrower(told, records):
    layout = told["groups"][0]["layout"]
    layout[next(iter(layout))][-1] = 4
    return told


@pytest.mark.parametrize(
    ("change", "clients", "said"),
    [
        (narrower, [3], "'backbone.1.weight' is 4x4 there, 4x64 elsewhere; give all nodes inputs"),
        (None, [1], "client 1 lives on node b already: give every client one id"),
        (
            tell(tasks=[["digit", "multiclass", 11, []]]),
            [3],
            "11 outputs there, multiclass with 10",
        ),
    ],
)
def test_a_node_that_is_left_out_is_told_why_once(change, clients, said, config):
    odd = honest(config, clients, "odd")
    fleet = Fleet(
        {
            5: honest(config, [0], "a"),
            7: honest(config, [1], "b"),
            9: forging(odd, QUERY, change) if change else odd,
        }
    )
    roster = Roster(config, None, 0.0, deployed=True)
    for _ in range(2):
        roster.discover(fleet, HEADER)
        roster.later.clear()  # it may be asked again at once
    (text,) = fleet.told.pop(9)
    assert said in text and not fleet.told and roster.nodes.keys() == {5, 7}
    assert [asked for asked in fleet.asked if asked == (QUERY, 9)] == [(QUERY, 9)] * 2


SIX = ["age", "weight", "pulse", "height", "sex", "score"]


@pytest.mark.parametrize(
    ("usual", "other", "said"),
    [
        (
            {"columns": SIX},
            {"columns": SIX[:4]},
            "it has 4 inputs, 6 elsewhere: sex, score not there; give all nodes the same columns",
        ),
        ({"columns": SIX}, {"columns": SIX[::-1]}, "6 inputs, 6 elsewhere: in another order"),
        (
            {"classes": {"digit": "a" * 64}},
            {"classes": {"digit": "b" * 64}},
            "its classes of task 'digit' are others than those on node a: as no node knows all,",
        ),
        ({"classes": {"digit": "a" * 64}}, {"classes": {}}, "set data.outputs.digit"),
    ],
)
def test_other_inputs_and_other_classes_are_refused_by_name(usual, other, said, config):
    fleet = Fleet(
        {
            5: forging(honest(config, [0], "a"), QUERY, tell(**usual)),
            9: forging(honest(config, [3], "odd"), QUERY, tell(**other)),
        }
    )
    roster = Roster(config, None, 0.0, deployed=True)
    roster.discover(fleet, HEADER)
    assert roster.nodes.keys() == {5}
    assert said in roster.refused[9] and fleet.told == {9: [roster.refused[9]]}


def test_a_node_that_knows_its_own_fault_is_not_told(config):
    fleet = Fleet({5: honest(config, [0], "a"), 9: gone})
    Roster(config, None, 0.0, deployed=True).discover(fleet, HEADER)
    assert not fleet.told


def test_no_deployed_node_can_play_another_s_clients(config, tmp_path):
    movable = forging(honest(config, [2, 3], "b"), QUERY, tell(movable=True))
    done = run(config, tmp_path, Fleet({5: honest(config, [0, 1], "a"), 9: movable}))
    assert done.records()[-1].clients.ids == (0, 1, 2, 3)


def null(name):
    def forge(told, records):
        records[name].update({key: np.float64(1) for key in records[name]})

    return forge


def block(number):
    return lambda b: np.full_like(b, number)


EVALUATIONS = {
    "another shape": (send("sums", "test/digit", lambda s: s[:, :1]), "'test/digit' has shape"),
    "a scalar": (null("sums"), "has shape ()"),
    "text": (send("sums", "test/digit", lambda s: s.astype(str)), "is of type <U"),
    "complex": (send("sums", "test/digit", lambda s: s.astype(complex)), "complex128"),
    "failed that is a number": (tell(failed=3), "'failed': Input should be a valid array"),
    "another's block": (send("blocks", "test/digit", block(0)), "of other clients"),
    "an unknown task": (
        lambda told, records: records["sums"].update(ghost=np.ones((1, 2))),
        "sums of 'ghost'",
    ),
    "no blocks": (lambda told, records: records.pop("blocks") is None or told, "lacks"),
}


@pytest.mark.parametrize("what", EVALUATIONS)
def test_a_damaged_evaluation_is_left_out(what, config, tmp_path, caplog):
    change, said = EVALUATIONS[what]
    caplog.set_level(logging.INFO)
    good, bad = honest(config, [0, 1], "good"), honest(config, [2, 3], "bad")
    alone = run(config, tmp_path, Fleet({5: good, 9: lambda m: evaluating(bad, m)}))
    fleet = Fleet({5: honest(config, [0, 1], "good"), 9: forging(bad, EVALUATE, change)})
    done = run(config, tmp_path, fleet)
    assert "node bad: evaluation: " in caplog.text and said in caplog.text
    for mine, theirs in zip(done.records(), alone.records(), strict=True):
        (failure,) = mine.clients.unevaluated
        assert failure.name == "bad" and said in failure.reason
        assert mine.evaluation == theirs.evaluation
        assert mine.evaluation["test"]["digit"] is not None


def evaluating(node, message):
    return gone(message) if message.metadata.message_type == EVALUATE else node(message)


def test_evaluations_that_fail_or_never_come_are_named(config, tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def mute(message):
        quiet = message.metadata.message_type == EVALUATE
        return [] if quiet else b(message)

    b = honest(config, [2, 3], "b")
    done = run(config, tmp_path, Fleet({5: honest(config, [0, 1], "a"), 9: mute}))
    assert "node b: evaluation: no reply" in caplog.text
    failed = done.records()[-1].clients.unevaluated
    assert [(f.client, f.name) for f in failed if "no reply" in f.reason] == [(None, "b")]
    assert done.records()[-1].evaluation["test"]["digit"] is not None


@pytest.mark.parametrize("when", [TRAIN, EVALUATE, PERSIST])
def test_a_node_that_dies_at_any_time_ends_no_run(when, config, tmp_path, caplog):
    caplog.set_level(logging.INFO, "fedjoint")
    seen = []

    def dying(message):
        kind = message.metadata.message_type
        seen.append(kind)
        if seen.count(when) >= 2:
            fleet.nodes.pop(9, None)
            return gone(message)
        return b(message)

    b = honest(config, [2, 3], "b")
    fleet = Fleet({5: honest(config, [0, 1], "a"), 9: dying})
    done = run(config, tmp_path, fleet)
    assert [r.clients.ids for r in done.records()][-1] == (0, 1)
    assert done.latest().round == 3
    assert any("node b (9) is gone" in r.getMessage() for r in caplog.records)
    failed = [f for r in done.records() for f in r.clients.failed]
    assert {(f.name, f.reason) for f in failed} <= {("b", "the node is gone")}
    assert bool(failed) is (when == TRAIN)


def test_a_silent_node_is_refused_and_does_not_hold_up_every_round(config, tmp_path):
    fleet = Fleet({5: honest(config, [0, 1], "a"), 9: silent})
    roster = Roster(config, None, 0.0, deployed=True)
    roster.discover(fleet, HEADER)
    assert roster.refused[9].startswith("no answer within 120 s")
    roster.later[9] += 1000  # it took its 120 seconds
    for _ in range(3):
        roster.discover(fleet, HEADER)
    assert fleet.asked == [(QUERY, 5), (QUERY, 9)]
    nodes = fleet.nodes
    fleet.nodes = {5: nodes[5]}
    roster.discover(fleet, HEADER)
    fleet.nodes = {5: nodes[5], 9: honest(config, [2], "b")}  # it was away, and is asked at once
    roster.discover(fleet, HEADER)
    assert roster.nodes.keys() == {5, 9} and not roster.refused


def test_a_checkpoint_of_another_backbone_is_not_gone_on_with(config, tmp_path):
    run = RunDir.create(tmp_path, "run", config)
    run.checkpoint(Checkpoint(1, {"backbone.1.weight": torch.zeros(2, 2)}, {}, Ledger()))
    with pytest.raises(UserError, match="differs from the checkpoint's"):
        serve(Fleet({5: honest(config, [0], "a")}), config, run, deployed=True)
    assert run.info["status"] == "failed"


def test_an_error_of_a_plug_in_s_is_logged_with_its_traceback(config, tmp_path, caplog):
    class Broken(Fleet):
        def get_node_ids(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(config, tmp_path, Broken({}))
    assert "Traceback" in caplog.text and "get_node_ids" in caplog.text


def test_the_log_tells_the_run_in_structure(config, tmp_path, caplog):
    caplog.set_level(logging.INFO, "fedjoint")
    late = forging(honest(config, [2, 3], "b"), TRAIN, tell(shares=False))
    run(config, tmp_path, Fleet({5: honest(config, [0, 1], "a"), 9: late}))
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    told = [line for line in lines if "event" in line]
    kinds = [line["event"] for line in told]
    once = ["failure", "round", "checkpoint"]
    assert kinds == ["start", "method", "joined", "joined", *once * 3, "end"]
    failure = told[kinds.index("failure")]
    assert (failure["round"], failure["name"], failure["node"]) == (1, "b", "9")
    assert told[kinds.index("round")]["trained"] == 2
