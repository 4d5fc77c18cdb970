"""Before a body is read: is there a key of ours, and is it no longer than a message?"""

import asyncio
import datetime
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from fedjoint.deploy.keys import make_keys
from fedjoint.errors import UserError
from fedjoint.flower import badges, gate
from fedjoint.flower.badges import read_badges
from fedjoint.flower.gate import Gate
from fedjoint.flower.node_keys import NodeKeys
from fedjoint.server.badges import Badge


@pytest.fixture
def folder(tmp_path):
    make_keys(tmp_path, ["joint.example"], ["alice", "bob"], {"alice": [2, 0]})
    make_keys(tmp_path / "other", ["joint.example"], ["eve"])
    return tmp_path


def signed(node, age=0.0, by=None, length=10):
    """Return a request as Flower's node sends it, ``age`` seconds ago."""
    key = load_ssh_private_key((node / "node.key").read_bytes(), None)
    signer = load_ssh_private_key((by / "node.key").read_bytes(), None) if by else key
    when = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age)).isoformat()
    headers = {
        "flwr-public-key": b64encode(public_key_to_bytes(key.public_key())),
        "flwr-timestamp": when.encode(),
        "flwr-signature": b64encode(sign_message(signer, when.encode())),
        "content-length": str(length).encode(),
    }
    return {
        "type": "http",
        "path": "/v1/fleet/push-messages",
        "client": ("203.0.113.7", 40000),
        "server": ("192.0.2.1", 8000),
        "headers": [(name.encode(), value) for name, value in headers.items()],
    }


def ask(scope, folder, bodies=()):
    """Return the status, and how many bytes of the body the app got before it was hung up."""
    sent, got, waiting = [], [], list(bodies)

    async def app(scope, receive, send):
        while waiting:
            event = await receive()
            if event["type"] == "http.disconnect":
                got.append(-1)
                return
            got.append(len(event["body"]))

    async def receive():
        return {"type": "http.request", "body": waiting.pop(0), "more_body": True}

    async def send(message):
        sent.append(message)

    asyncio.run(Gate(app, NodeKeys(folder / "nodes"))(scope, receive, send))
    return (sent[0]["status"] if sent else 200), got


def test_a_known_key_may_pass_and_no_other(folder):
    alice, eve = folder / "nodes/alice", folder / "other/nodes/eve"
    assert ask(signed(alice), folder, [b"12"]) == (200, [2])
    assert ask(signed(eve), folder, [b"12"]) == (401, [])
    assert ask(signed(alice, by=eve), folder, [b"12"]) == (401, [])
    assert ask(signed(alice, age=3600.0), folder, [b"12"]) == (401, [])
    bare = signed(alice)
    for lacking in range(3):
        cut = bare | {"headers": [h for i, h in enumerate(bare["headers"]) if i != lacking]}
        assert ask(cut, folder, [b"12"]) == (401, [])


def test_a_body_is_no_longer_than_a_message(folder, monkeypatch):
    monkeypatch.setattr(gate, "MOST", 10)
    alice = folder / "nodes/alice"
    assert ask(signed(alice, length=11), folder, [b"1"]) == (413, [])
    assert ask(signed(alice, length="9" * 30), folder, [b"1"]) == (413, [])
    # Where a request lies about its length, it is cut off.
    assert ask(signed(alice), folder, [b"12345", b"12345", b"6"]) == (200, [5, 5, -1])


def test_a_key_that_the_operator_removes_is_refused(folder, monkeypatch):
    keys = NodeKeys(folder / "nodes")
    assert keys.signed(signed(folder / "nodes/bob"))
    request = signed(folder / "nodes/bob")
    (folder / "nodes/bob/node.pub").unlink()
    monkeypatch.setattr(keys, "_read", -10.0)
    assert not keys.signed(request)


def test_keys_are_tied_to_names_and_clients(folder):
    found = set(read_badges(folder / "nodes").values())
    assert found == {Badge("alice", frozenset({0, 2})), Badge("bob")}
    before = (folder / "nodes/bob/node.key").read_bytes()
    make_keys(folder, [], ["bob"], {"bob": [7]})
    assert (folder / "nodes/bob/node.key").read_bytes() == before
    found = set(read_badges(folder / "nodes").values())
    assert found == {Badge("alice", frozenset({0, 2})), Badge("bob", frozenset({7}))}
    make_keys(folder, [], ["bob"])  # more nodes at another time leave it alone
    assert Badge("bob", frozenset({7})) in read_badges(folder / "nodes").values()


@pytest.mark.parametrize("text", ["", "no key", "ecdsa-sha2-nistp384 AAAA alice clients=0"])
def test_a_file_that_is_no_key_is_refused_by_name(text, folder):
    (folder / "nodes/bob/node.pub").write_text(text)
    with pytest.raises(UserError, match=r"bob/node\.pub: not a node's public key"):
        badges.read_badges(folder / "nodes")
