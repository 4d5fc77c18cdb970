"""Why a server's certificate is refused, said so that it can be fixed."""

import socket
import ssl
import threading
from contextlib import contextmanager, suppress

import pytest

from fedjoint.deploy.address import distrust
from fedjoint.deploy.keys import make_keys
from fedjoint.deploy.server import check_trust
from fedjoint.errors import UserError


@contextmanager
def listening(server=None):
    """A port of the loopback, with TLS by the keys in ``server`` or a plain answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                if server is None:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(server / "server.pem", server / "server.key")
                with suppress(OSError):  # the other side has hung up
                    context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder / "ours", ["joint.example"], ["a"])
    make_keys(folder / "theirs", ["joint.example"], [])
    return folder


def test_a_certificate_that_is_in_order(keys):
    with listening(keys / "ours/server") as port:
        check_trust(f"127.0.0.1:{port}", keys / "ours")


def test_one_that_lacks_the_address(keys, monkeypatch):
    here = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: here("127.0.0.1", *a, **k))
    with listening(keys / "ours/server") as port:
        why = distrust("other.example", port, keys / "ours/ca.pem")
    assert "not valid for 'other.example'" in why
    assert "fedjoint keys KEYS --host other.example" in why


def test_one_of_another_authority(keys):
    with listening(keys / "ours/server") as port, pytest.raises(UserError, match="not of the keys"):
        check_trust(f"127.0.0.1:{port}", keys / "theirs")


def test_a_server_without_tls_and_none(keys):
    with listening() as port:
        assert "speaks no TLS" in distrust("127.0.0.1", port, keys / "ours/ca.pem")
    assert distrust("127.0.0.1", port, keys / "ours/ca.pem") is None  # nobody is there yet


def test_what_is_no_certificate_is_named(keys, tmp_path):
    (tmp_path / "ca.pem").write_text("?")
    with pytest.raises(UserError, match=r"ca\.pem: not a certificate"):
        distrust("127.0.0.1", 1, tmp_path / "ca.pem")
