"""Who may ask a SuperLink for what."""

import asyncio
import http.client
import socket

import pytest
from support.machines import Site

from fedjoint._util.net import listens
from fedjoint.flower.gate import Gate, allowed


def request(path, peer="203.0.113.7", own="192.0.2.1", headers=()):
    return {
        "type": "http",
        "path": path,
        "client": (peer, 40000) if peer else None,
        "server": (own, 8000),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }


CLOSED = [
    "/v1/control/start-run",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/fleet",
    "/v1/fleetx/pull-messages",
    "/docs",
    "/",
]


@pytest.mark.parametrize("path", CLOSED)
def test_only_the_nodes_api_is_for_others(path):
    assert not allowed(request(path))
    assert allowed(request("/v1/fleet/pull-messages"))
    for here in ("127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1", "192.0.2.1"):
        assert allowed(request(path, peer=here))


@pytest.mark.parametrize("peer", [None, "", "localhost", "::ffff:203.0.113.7", "0.0.0.0"])
def test_a_peer_that_is_not_surely_local_is_refused(peer):
    assert not allowed(request("/v1/control/start-run", peer=peer))


@pytest.mark.parametrize("name", ["X-Forwarded-For", "x-forwarded-proto", "Forwarded", "Via"])
def test_what_a_header_says_of_the_peer_opens_nothing(name):
    headers = [(name, "127.0.0.1")]
    for peer in ("203.0.113.7", "127.0.0.1"):
        assert not allowed(request("/v1/control/start-run", peer=peer, headers=headers))
    assert allowed(request("/v1/fleet/pull-messages", headers=headers))


def answer(scope):
    """Return what a peer gets, and whether the app behind the gate saw the request."""
    sent, seen = [], []

    async def app(scope, receive, send):
        seen.append(scope)

    async def send(message):
        sent.append(message)

    asyncio.run(Gate(app)(scope, None, send))
    return sent, bool(seen)


def test_the_gate_answers_in_place_of_the_app():
    sent, seen = answer(request("/v1/control/start-run"))
    assert sent[0]["status"] == 403 and b"its own machine" in sent[1]["body"] and not seen
    sent, seen = answer(request("/v1/control/stream", headers=()) | {"type": "websocket"})
    assert sent == [{"type": "websocket.close", "code": 1008}] and not seen
    assert answer(request("/v1/fleet/pull-messages")) == ([], True)
    assert answer({"type": "lifespan"}) == ([], True)


def elsewhere():
    """Return an address of this machine that is not the loopback, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        return probe.getsockname()[0]


@pytest.mark.slow
def test_a_real_server_is_closed_to_other_addresses(tmp_path):
    if (address := elsewhere()) is None:
        pytest.skip("this machine has no address but the loopback")

    def ask(path, source):
        asked = http.client.HTTPConnection("127.0.0.1", port, source_address=(source, 0))
        asked.request("POST", path, b"x", {"X-Client": "test"})
        try:
            return asked.getresponse().status
        finally:
            asked.close()

    with Site(tmp_path) as site:
        port = int(site.address.split(":")[1])
        site.server()
        site.until(lambda: listens("127.0.0.1", port))
        closed = ("/v1/control/register-node", "/v1/control/start-run", "/v1/runtime/acquire-task")
        for path in closed:
            assert ask(path, address) == 403
            assert ask(path, "127.0.0.1") == 415  # Flower's own answer: this is no message
        assert ask("/v1/fleet/pull-messages", address) == 415
