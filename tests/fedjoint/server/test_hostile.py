"""One hostile node among four: the run is that of the other three, and it is named."""

from dataclasses import replace

import numpy as np
import pytest
from support.fleet import SETTINGS, Fleet, forging, gone, honest, send, tell

from fedjoint.config.load import check
from fedjoint.flower.compat import be_server
from fedjoint.model.metrics.accuracy import accuracy
from fedjoint.protocol.requests import EVALUATE, QUERY, TRAIN
from fedjoint.runs.directory import RunDir
from fedjoint.server.exclusion import Exclusions
from fedjoint.server.serve import serve

ROUNDS = 4


@pytest.fixture(scope="module")
def config():
    return check(SETTINGS | {"rounds": ROUNDS})


def nested(depth):
    found = "end"
    for _ in range(depth):
        found = [found]
    return found


def fleet(config, change, kind, number=9):
    """Three honest nodes with a client each, and one that forges what it says."""
    good = {node: honest(config, [node - 2], f"good {node}") for node in (2, 3, 4)}
    return Fleet({number: forging(honest(config, [3], "bad"), kind, change), **good})


def run(config, path, nodes, **options):
    done = RunDir.create(path, "run", config)
    serve(nodes, config, done, deployed=True, **options)
    return done


def mute(config, kind):
    """Three honest nodes, and one that fails where the others do something of a ``kind``."""
    nodes = fleet(config, tell(), kind)
    bad = nodes.nodes[9]
    nodes.nodes[9] = lambda m: gone(m) if m.metadata.message_type == kind else bad(m)
    return nodes


@pytest.fixture(scope="module")
def expected(config, tmp_path_factory):
    """The backbone of the run in which the fourth node never trains."""
    be_server()
    return run(config, tmp_path_factory.mktemp("expected"), mute(config, TRAIN)).final().whole


REPLIES = {
    "a nested fallback": tell(fallback=nested(600)),
    "a fallback of 5 MB": tell(fallback="x" * 5_000_000),
    "nested failures": tell(failed=nested(600)),
    "another's failure": tell(failed=[{"client": 0, "reason": "mine"}]),
    "a reason of 5 MB": tell(failed=[{"client": 3, "reason": "x" * 5_000_000}]),
    "a task of 5 MB": tell(tasks=["x" * 5_000_000]),
    "seconds beyond all measure": tell(seconds=1e300),
    "more examples than it has": send("report", "examples", lambda e: e * 0 + 2**40),
    "more steps than were asked for": send("report", "steps", lambda s: s + 1),
    "more gradients than such steps take": send("report", "work", lambda w: w + 2**39),
    "more bytes than a client can send": tell(bytes_per_client=2**39),
    "an update of 1e30": send("updates", "updates", lambda u: u * 0 + np.float32(1e30)),
}


@pytest.mark.parametrize("what", REPLIES)
def test_a_hostile_reply_is_named_and_its_node_is_not_asked_a_fourth_time(
    what, config, tmp_path, expected
):
    nodes = fleet(config, REPLIES[what], TRAIN)
    done = run(config, tmp_path, nodes)
    assert nodes.asked.count((TRAIN, 9)) == 3
    records = done.records()
    assert [record.clients.ids for record in records] == [(0, 1, 2)] * ROUNDS
    assert [[f.name for f in r.clients.failed] for r in records] == [["bad"]] * 3 + [[]]
    assert all(len(str(record)) < 20_000 for record in records)
    for name, values in done.final().whole.items():
        assert values.equal(expected[name]), name


def test_a_resumed_run_remembers_the_faults(config, tmp_path):
    path = tmp_path / "run"
    nodes = fleet(config, tell(seconds=-1.0), TRAIN)
    done = run(config, path, nodes)
    done.change({"rounds": ROUNDS + 2})
    again = fleet(config, tell(seconds=-1.0), TRAIN)
    serve(again, done.config(), done, deployed=True)
    assert (TRAIN, 9) not in again.asked and (TRAIN, 2) in again.asked


def test_a_fault_before_the_first_round_counts_as_it_does_after_a_resume(tmp_path):
    config = check(SETTINGS | {"rounds": ROUNDS, "evaluate": {"initial": True}})
    nodes = fleet(config, tell(seconds=-1.0), EVALUATE)
    done = run(config, tmp_path, nodes)
    assert nodes.asked.count((EVALUATE, 9)) == 3
    assert Exclusions.of(done.records()).nodes["bad"] == 3


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.5])
def test_the_first_backbone_is_what_the_seed_gives_not_what_one_node_says(
    factor, config, tmp_path, expected
):
    change = send("backbone", "backbone.1.weight", lambda w: w * np.float32(factor))
    done = run(config, tmp_path, fleet(config, change, QUERY, number=1))
    assert all(values.equal(expected[n]) for n, values in done.final().whole.items())
    states = {node["node"]: node["state"] for node in done.nodes()}
    assert "first backbone is not what the run's seed gives" in states["1"]


def test_a_first_backbone_beyond_all_measure_is_refused(config, tmp_path):
    change = send("backbone", "backbone.1.weight", lambda w: w * 0 + np.float32(1e20))
    done = run(config, tmp_path, fleet(config, change, QUERY, number=1))
    states = {node["node"]: node["state"] for node in done.nodes()}
    assert "numbers above 1e+06" in states["1"]


INTRODUCTIONS = {
    "two to the forty examples": (send("population", "sizes", lambda s: s * 0 + 2**40), "above"),
    "a million times as many": (send("population", "sizes", lambda s: s * 10**6), "1000 times"),
    "two hundred tasks": (
        lambda told, records: (
            records["population"].update(mask=np.ones((1, 201), bool))
            or told
            | {"tasks": [*told["tasks"], *([f"t{i}", "regression", 1, []] for i in range(200))]}
        ),
        "200 tasks that no other node has",
    ),
}


@pytest.mark.parametrize("what", INTRODUCTIONS)
def test_a_node_that_claims_much_more_than_others_is_refused(what, config, tmp_path):
    change, said = INTRODUCTIONS[what]
    done = run(config, tmp_path, fleet(config, change, QUERY))
    states = {node["node"]: node["state"] for node in done.nodes()}
    assert states["9"].startswith("refused: ") and said in states["9"]
    assert [record.clients.ids for record in done.records()] == [(0, 1, 2)] * ROUNDS


SUMS = {
    "NaN": (send("sums", "test/digit", lambda s: s * np.nan), "not finite"),
    "infinity": (send("sums", "test/digit", lambda s: s + np.inf), "not finite"),
    "a million million hits": (send("sums", "test/digit", lambda s: s * 0 + 1e12), "more examples"),
    "a negative count": (send("sums", "test/digit", lambda s: -s), "more examples"),
    "one example more": (send("sums", "test/digit", lambda s: s * 10), "more examples"),
}


@pytest.mark.parametrize("what", SUMS)
def test_metrics_hold_what_clients_can_have_counted(what, config, tmp_path):
    change, said = SUMS[what]
    nodes = fleet(config, change, EVALUATE)
    done = run(config, tmp_path / "a", nodes)
    assert nodes.asked.count((EVALUATE, 9)) == 3
    expected = run(config, tmp_path / "b", mute(config, EVALUATE)).records()
    first = done.records()[0].clients.unevaluated
    assert [(f.name, said in f.reason) for f in first] == [("bad", True)]
    for mine, theirs in zip(done.records()[:3], expected, strict=False):
        assert mine.evaluation == theirs.evaluation


def without_examples(output, y):
    """Statistics of a user's own, which are not told of an example without a label."""
    if not (y >= 0).any():
        raise ValueError("no label")
    return accuracy.statistics(output, y)


WITHOUT_EXAMPLES = replace(accuracy, statistics=without_examples)


@pytest.mark.parametrize("times", [1e20, -1e20])
def test_sums_far_beyond_the_others_do_not_count(times, config, tmp_path):
    change = send("sums", "test/digit", lambda s: s * np.array([1, times, times]))
    done = run(config, tmp_path / "a", fleet(config, change, EVALUATE))
    expected = run(config, tmp_path / "b", mute(config, EVALUATE)).records()
    first = done.records()[0].clients.unevaluated
    assert [(f.name, f.fault, "beside the others'" in f.reason) for f in first] == [
        ("bad", True, True)
    ]
    for mine, theirs in zip(done.records()[:3], expected, strict=False):
        assert mine.evaluation == theirs.evaluation


def test_a_client_s_own_metric_far_beyond_the_others_does_not_count(config, tmp_path):
    change = send("values", "values", lambda v: v * 0 + 1e30)
    done = run(config, tmp_path, fleet(config, change, EVALUATE))
    for record in done.records()[:3]:
        assert [(f.client, f.name, f.fault) for f in record.clients.unevaluated] == [
            (3, "bad", True)
        ]
        assert record.spread["digit"]["clients"] == 3
    assert done.records()[-1].clients.ids == (0, 1, 2)


def test_a_loss_a_time_and_claims_within_bounds_leave_the_record_as_it_is(config, tmp_path):
    change = send("report", "losses", lambda x: x * 0 + np.float32(1e30))
    forged = fleet(config, lambda t, r: (change(t, r), t | {"seconds": 1e9})[1], TRAIN)
    for record in run(config, tmp_path, forged).records():
        assert [(c.client, c.name) for c in record.clients.clipped] == [(3, "bad")]
        assert record.clients.ids == (0, 1, 2, 3)
        assert record.objective < 1e3 and record.seconds.train <= record.seconds.round


WIDTHS = {
    "no statistics": lambda s: s[:, :0],
    "no sums": lambda s: s[0],
    "one statistic more": lambda s: np.pad(s, ((0, 0), (0, 1))),
    "one example more": lambda s: s * 10,
}


@pytest.mark.parametrize("metric", ["accuracy", f"{__name__}:WITHOUT_EXAMPLES"])
@pytest.mark.parametrize("what", WIDTHS)
def test_sums_of_a_metric_that_is_named_are_checked_as_those_by_default(what, metric, tmp_path):
    config = check(SETTINGS | {"rounds": 2, "metrics": {"digit": metric}})
    changed = run(
        config, tmp_path / "a", fleet(config, send("sums", "test/digit", WIDTHS[what]), EVALUATE)
    )
    expected = run(config, tmp_path / "b", mute(config, EVALUATE)).records()
    for mine, theirs in zip(changed.records(), expected, strict=True):
        assert [(f.name, f.fault) for f in mine.clients.unevaluated] == [("bad", True)]
        assert mine.evaluation == theirs.evaluation


def test_an_update_longer_than_ten_times_the_median_is_scaled_down_and_named(config, tmp_path):
    change = send("updates", "updates", lambda u: u * 1000)
    done = run(config, tmp_path, fleet(config, change, TRAIN))
    for record in done.records():
        assert [(c.client, c.name) for c in record.clients.clipped] == [(3, "bad")]
        assert "10 times the round's median" in record.clients.clipped[0].reason
        assert record.clients.ids == (0, 1, 2, 3)
