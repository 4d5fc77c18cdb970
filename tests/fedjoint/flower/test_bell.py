"""Requests for messages wait until there may be some, and miss none."""

import asyncio

import pytest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, TASK_TOKEN_HEADER

from fedjoint.flower import bell as module
from fedjoint.flower.bell import WAITS, Bell
from fedjoint.flower.gate import Gate

WHO = {"fleet": FLEET_HTTP_PUBLIC_KEY_HEADER, "runtime": TASK_TOKEN_HEADER}
OTHER = {"fleet": "runtime", "runtime": "fleet"}


def scope(side, what, who="a", waits=True):
    headers = [(WHO[side].lower().encode(), who.encode()), *[(WAITS.encode(), b"1")] * waits]
    path = f"/v1/{side}/{what}"
    peer = ("127.0.0.1", 40000)
    return {"type": "http", "path": path, "headers": headers, "client": peer, "server": peer}


def body(hung_up=None):
    """What a request receives: its body, and then that the peer hangs up, if it does."""
    parts = [{"type": "http.request", "body": b"ask"}]

    async def receive():
        if parts:
            return parts.pop()
        await (hung_up or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    return receive


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def long(monkeypatch):
    monkeypatch.setattr(module, "MOST", 600.0)  # so that only the bell ends a wait
    monkeypatch.setattr(module, "_REST", 0.0)


@pytest.mark.parametrize("side", ["fleet", "runtime"])
@pytest.mark.parametrize("pushed", ["push-messages", "push-object"])
def test_a_peer_waits_until_the_other_side_has_pushed_something(side, pushed):
    async def go():
        bell, pull = Bell(), scope(side, "pull-messages")
        await bell.wait(pull, body())  # the first one: something may be there
        waiting = asyncio.ensure_future(bell.wait(pull, body()))
        await settle()
        bell.ring(scope(side, pushed))  # its own side's
        bell.ring(scope(OTHER[side], "pull-messages"))
        await settle()
        assert not waiting.done()
        bell.ring(scope(OTHER[side], pushed))
        await asyncio.wait_for(waiting, 60)

    asyncio.run(go())


def test_what_comes_between_two_requests_is_not_missed():
    async def go():
        bell, pull = Bell(), scope("fleet", "pull-messages")
        await bell.wait(pull, body())
        bell.ring(scope("runtime", "push-messages"))
        await asyncio.wait_for(bell.wait(pull, body()), 60)
        late = asyncio.ensure_future(bell.wait(pull, body()))
        await asyncio.wait_for(bell.wait(scope("fleet", "pull-messages", who="b"), body()), 60)
        await settle()
        assert not late.done()
        late.cancel()

    asyncio.run(go())


def test_a_node_that_does_not_ask_to_wait_does_not():
    async def go():
        bell, pull = Bell(), scope("fleet", "pull-messages", waits=False)
        for _ in range(3):
            await asyncio.wait_for(bell.wait(pull, body()), 60)
            await asyncio.wait_for(bell.wait(scope("fleet", "pull-object"), body()), 60)

    asyncio.run(go())


def test_a_request_that_waited_has_its_body_still():
    async def go():
        bell, pull = Bell(), scope("runtime", "pull-messages")
        await bell.wait(pull, body())
        waiting = asyncio.ensure_future(bell.wait(pull, body()))
        await settle()
        bell.ring(scope("fleet", "push-object"))
        receive = await asyncio.wait_for(waiting, 60)
        assert (await receive())["body"] == b"ask"

    asyncio.run(go())


def test_a_peer_that_hangs_up_is_not_answered():
    async def go():
        bell, pull, gone = Bell(), scope("runtime", "pull-messages"), asyncio.Event()
        await bell.wait(pull, body())
        waiting = asyncio.ensure_future(bell.wait(pull, body(gone)))
        await settle()
        gone.set()
        assert await asyncio.wait_for(waiting, 60) is None

    asyncio.run(go())


def test_a_wait_ends_by_itself(monkeypatch):
    monkeypatch.setattr(module, "MOST", 0.01)

    async def go():
        bell, pull = Bell(), scope("runtime", "pull-messages")
        for _ in range(3):
            await asyncio.wait_for(bell.wait(pull, body()), 60)

    asyncio.run(go())


def test_peers_without_number_take_no_memory_without_end(monkeypatch):
    monkeypatch.setattr(module, "_PEERS", 5)

    async def go():
        bell = Bell()
        for i in range(20):
            await bell.wait(scope("fleet", "pull-messages", who=str(i)), body())
        assert len(bell._heard) <= 5

    asyncio.run(go())


def test_the_gate_holds_a_request_and_rings_after_another():
    answered = []

    async def app(scope, receive, send):
        answered.append(scope["path"])

    async def go():
        gate, pull = Gate(app, bell=Bell()), scope("fleet", "pull-messages")
        await gate(pull, body(), None)
        held = asyncio.ensure_future(gate(pull, body(), None))
        await settle()
        assert len(answered) == 1
        await gate(scope("runtime", "push-messages"), body(), None)
        await asyncio.wait_for(held, 60)

    asyncio.run(go())
    assert [path.rpartition("/")[2] for path in answered] == [
        "pull-messages",
        "push-messages",
        "pull-messages",
    ]
