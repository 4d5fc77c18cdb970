"""A node is the one of its key, with the clients of its key."""

import pytest
from support.fleet import SETTINGS, Fleet, honest

from fedjoint.config.load import check
from fedjoint.protocol.requests import Header
from fedjoint.server.badges import Badge
from fedjoint.server.roster import Roster

HEADER = Header("run", "a" * 32, SETTINGS, 0, 0, 0, 0, "joint", {}, 60.0)


@pytest.mark.parametrize(
    ("badge", "said"),
    [
        (None, "its key is not among those of the server"),
        (Badge("bob", frozenset({2})), "calls itself alice, and its key is that of bob"),
        (Badge("alice", frozenset({2})), "client 0 does not belong to the key of alice"),
        (Badge("alice", frozenset()), "client 0 does not belong to the key of alice"),
    ],
)
def test_a_node_that_says_it_is_another_is_refused(badge, said):
    config = check(SETTINGS)
    badges = {5: Badge("alice", frozenset({0, 1})), 9: badge}
    roster = Roster(config, None, 0.0, deployed=True, badges=badges.get)
    alice, thief = honest(config, [0, 1], "alice"), honest(config, [0, 1], "alice")
    roster.discover(Fleet({9: thief, 5: alice}), HEADER)
    assert roster.nodes.keys() == {5} and said in roster.refused[9]
    assert roster.people.ids.tolist() == [0, 1]


def test_a_key_without_clients_is_tied_to_its_name_alone():
    config = check(SETTINGS)
    roster = Roster(config, None, 0.0, deployed=True, badges=lambda node: Badge("alice"))
    roster.discover(Fleet({5: honest(config, [0, 3], "alice")}), HEADER)
    assert roster.people.ids.tolist() == [0, 3]
