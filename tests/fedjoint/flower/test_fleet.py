"""What a SuperLink's refusals mean for a node, and that a message survives the way."""

import json
import threading
from email.utils import formatdate
from multiprocessing import Pipe

import httpx
import numpy as np
import pytest
from flwr.app import Message
from support.messages import settings

from fedjoint.deploy.keys import make_keys
from fedjoint.errors import UserError
from fedjoint.flower.compat import be_server, number
from fedjoint.flower.fleet import AwayError, Fleet, GoneError, RefusedError
from fedjoint.flower.parcels import Parcel, be_node, failure
from fedjoint.protocol import wire
from fedjoint.protocol.requests import TRAIN


def answering(status, body="", **headers):
    """A node whose server answers everything so."""
    fleet = Fleet("127.0.0.1:1", None, None)
    answer = httpx.Response(
        status, text=body, headers=headers, request=httpx.Request("POST", "http://x")
    )

    def call(request):
        raise httpx.HTTPStatusError("refused", request=answer.request, response=answer)

    for name in ("RegisterNode", "ActivateNode", "PullMessages", "SendNodeHeartbeat"):
        setattr(fleet._client, name, call)
    return fleet


def flower(code):
    return json.dumps({"code": code, "detail": "Flower says little."})


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "said"),
    [
        (412, flower(2004), {}, RefusedError, "does not know this node's key"),
        (412, flower(2001), {}, RefusedError, "takes nodes with keys alone: give --keys"),
        (403, flower(2007), {}, GoneError, "the run is over"),
        (401, "", {"date": "now"}, RefusedError, "does not know this node's key"),
        (401, "", {"date": formatdate(1e9, usegmt=True)}, RefusedError, "seconds apart: set them"),
        (401, "", {}, RefusedError, "does not know this node's key"),
        (404, "not here", {}, AwayError, "no fedjoint server; fix --server"),
        (503, "", {}, AwayError, "HTTP status 503"),
        (418, "a teapot", {}, RefusedError, "418: a teapot"),
    ],
)
def test_a_refusal_says_what_to_do(status, body, headers, kind, said):
    headers = {k: formatdate(usegmt=True) if v == "now" else v for k, v in headers.items()}
    with pytest.raises(kind, match=said):
        answering(status, body, **headers).receive()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "nobody listens there; start the"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "no machine of that name"),
        (httpx.ConnectError("[Errno 113] No route to host"), "cannot be reached .*No route"),
        (httpx.ReadTimeout("timed out"), r"the connection broke \(ReadTimeout: timed out\)"),
    ],
)
def test_a_server_that_is_away_is_told_apart(error, said):
    fleet = Fleet("127.0.0.1:1", None, None)

    def call(request):
        raise error

    fleet._client.PullMessages = call
    with pytest.raises(AwayError, match=said):
        fleet.receive()


def test_a_file_that_is_no_key_is_named(tmp_path):
    make_keys(tmp_path, ["localhost"], ["a"])
    Fleet("127.0.0.1:1", tmp_path / "nodes/a/ca.pem", tmp_path / "nodes/a/node.key")
    with pytest.raises(UserError, match=r"node\.pub: not a node's key"):
        Fleet("127.0.0.1:1", tmp_path / "nodes/a/ca.pem", tmp_path / "nodes/a/node.pub")


def test_a_message_goes_through_a_pipe_and_its_reply_back():
    be_server()
    values = np.arange(3e5, dtype=np.float32)
    content = wire.bundle(wire.pack({"round": 3}, updates={"large": values, "small": values[:5]}))
    (message,) = number([Message(content, 7, TRAIN)])
    ours, theirs = Pipe()
    threading.Thread(target=Parcel.of(message).send, args=(ours,)).start()
    arrived = Parcel.receive(theirs).message()
    assert settings(arrived) == {"round": 3}
    found = wire.arrays(arrived, "updates")
    assert np.array_equal(found["large"], values) and np.array_equal(found["small"], values[:5])
    be_node(run_id=1, node_id=7)
    reply = Parcel.of(failure("the worker ended", arrived))
    said = reply.message()
    assert said.error.reason == "the worker ended" and not said.has_content()
    assert said.metadata.reply_to_message_id == arrived.metadata.message_id
    be_server()
