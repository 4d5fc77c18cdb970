"""A node that lives through a server's restart does what one restarted with it does."""

import shutil

import numpy as np
import pytest
from flwr.app import Message

from fedjoint import messages
from fedjoint.config import check
from fedjoint.engines.identity import be_server, number
from fedjoint.node import Node
from fedjoint.problem import build_problem
from fedjoint.records import to_arrays

CONFIG = check(
    {
        "data": {"clients": 4, "task_mix": [["digit"]]},
        "model": {"hidden": [8]},
        "local": {"steps": 3, "optimiser": {"lr": 0.5}},
    }
)


@pytest.fixture(scope="module")
def problem():
    return build_problem(CONFIG)


def train(node, round, generation=0, resumed_from=0):
    """Ask ``node`` to train two clients from the initial backbone; return their updates."""
    be_server()
    state = node.trainer.model.state_dict()
    request = {
        "round": round,
        "generation": generation,
        "resumed_from": resumed_from,
        "reduce": False,
        "method": "joint",
        "method_options": {},
    }
    content = messages.pack(
        request,
        backbone={name: state[name] for name in node.trainer.layout.shapes},
        plan={
            "clients": np.array([1, 2]),
            "weights": np.ones(2),
            "blocks": np.array([0]),
            "sizes": np.array([2]),
        },
    )
    (message,) = number([Message(content, 1, messages.TRAIN)])
    reply = node.handle(message)
    assert not messages.json.loads(reply["config"]["json"])["failed"]
    return to_arrays(reply["updates"])["updates"]


def test_a_resumed_run_forgets_what_memory_holds_of_later_rounds(problem, tmp_path):
    node = Node(problem, CONFIG, tmp_path / "state.sqlite", write_through=True)
    for round in (1, 2, 3):
        train(node, round)
    shutil.copytree(tmp_path, tmp_path.parent / "copy")
    restarted = Node(problem, CONFIG, tmp_path.parent / "copy" / "state.sqlite")
    # Heads are those of round 1 again, though the next round that asks comes late.
    expected = train(restarted, 5, generation=1, resumed_from=1)
    assert np.array_equal(train(node, 5, generation=1, resumed_from=1), expected)
    # The next round of this generation builds on the last.
    assert np.array_equal(train(node, 6, 1, 1), train(restarted, 6, 1, 1))
