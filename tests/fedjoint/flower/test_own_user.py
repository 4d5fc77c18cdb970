"""A node's local port is for its own user."""

import os
import socket

import pytest

from fedjoint.flower.own_user import own_user


@pytest.fixture
def connection():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        own = listening.getsockname()
        with socket.create_connection(own) as client:
            yield {"type": "http", "client": client.getsockname(), "server": own}


def test_a_process_of_the_same_user_may_pass(connection):
    assert own_user(connection)


def test_another_user_s_may_not(connection, tmp_path):
    client, server = connection["client"][1], connection["server"][1]
    table = tmp_path / "tcp"
    lines = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid",
        f"   0: 0100007F:{client:04X} 0100007F:{server:04X} 01 0:0 0:0 0 {os.getuid() + 1} 0",
    ]
    table.write_text("\n".join(lines))
    assert not own_user(connection, [table])
    table.write_text(lines[0])
    assert not own_user(connection, [table])  # nobody's
    assert own_user(connection, [tmp_path / "none"])  # a system without such a table
    assert not own_user(connection | {"client": None})
