"""What goes wrong is said once a reason."""

from dataclasses import replace
from pathlib import Path

from support.records import make_record

from fedjoint.config.load import check
from fedjoint.runs.record import Failure, Participation
from fedjoint.server.troubles import Troubles


class Kept(Troubles):
    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def record(round, failed=(), unevaluated=(), untrained=0, **more):
    clients = Participation(
        9,
        9 - len(failed),
        (),
        tuple(Failure(client, 1, reason, "west") for client, reason in failed),
        tuple(Failure(client, 1, reason, "west") for client, reason in unevaluated),
        untrained,
    )
    return replace(make_record(round), clients=clients, **more)


def test_a_reason_is_said_once_with_how_many_it_concerns():
    said = Kept()
    said.on_run_begin(check({}), Path())
    said.after_round(record(1, failed=[(3, "hot"), (4, "hot"), (5, "cold")], fallback="mixes"))
    said.after_round(record(2, failed=[(4, "hot"), (7, "wet")], fallback="mixes", kept="no merge"))
    said.after_round(record(3, unevaluated=[(1, "dim")], kept="no merge"))
    said.after_round(record(4, unevaluated=[(2, "dim")]))
    assert said.lines == [
        "clients are not batched as usual: mixes",
        "round 1: client 3 (node west) and 1 more: hot",
        "round 1: client 5 (node west): cold",
        "round 2: client 7 (node west): wet",
        "round 2: the previous backbone is kept: no merge",
        "round 3: client 1 (node west): evaluation: dim",
    ]


def test_what_was_asked_for_is_no_trouble():
    said = Kept()
    said.on_run_begin(check({"local": {"path": "sequential"}}), Path())
    said.after_round(record(1, fallback="local.path is sequential"))
    assert said.lines == []


def test_who_has_not_trained_yet_is_counted_once():
    said = Kept()
    for round, found in ((1, None), (2, {"test": {"a": 0.5}})):
        said.after_round(record(round, untrained=3 - round, evaluation=found))
    assert said.lines == ["round 1: clients that have not trained yet are in no metric: 2"]
