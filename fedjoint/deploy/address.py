"""Addresses, and whether a connection to one may go without keys."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from pathlib import Path

from fedjoint.errors import UserError

# OpenSSL's codes: the host or the address is another; the authority is not the one given.
_OTHER_NAME, _OTHER_AUTHORITY = (62, 64), (18, 19, 20, 21, 7)


def parse(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises:
        UserError: it is not of this form.
    """
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    good = host.isprintable() and (_is_ip(host) if ":" in host else host.strip())
    if not colon or not good or not (port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise UserError(f"{address!r}: write the server's address as HOST:PORT")
    return host, int(port)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def join(host: str, port: int) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine, by a way that leaves it nowhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_keys(host: str, keys: Path | None, insecure: bool, files: tuple[str, ...]) -> None:
    """Make sure that a connection has keys, or may go without.

    Args:
        host: of the server.
        keys: folder of the keys.
        insecure: whether the user accepts an open connection.
        files: what has to be in ``keys``.

    Raises:
        UserError: neither keys nor consent were given for a host beyond the loopback, or a key
            is missing.
    """
    if keys is not None:
        if insecure:
            raise UserError("give --keys or --insecure, not both")
        for name in files:
            if not (keys / name).is_file():
                raise UserError(f"{keys / name}: no such file; make keys with fedjoint keys")
    elif not insecure and not is_loopback(host):
        raise UserError(
            f"{host} is not the loopback address: give --keys (see fedjoint keys), or --insecure "
            "to let anyone on the way read and change what travels"
        )


def distrust(host: str, port: int, authority: Path) -> str | None:
    """Return why a server's certificate is not to be trusted; None where it is, or nobody answers.

    Args:
        host: under which the server is reached.
        port: of the server.
        authority: certificate of the authority that has to have signed.

    Raises:
        UserError: ``authority`` is no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except ssl.SSLError:
        raise UserError(f"{authority}: not a certificate; copy it again") from None
    try:
        with (
            socket.create_connection((host, port), timeout=5.0) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        said = (
            f"the certificate of {join(host, port)} is refused: {error.verify_message.rstrip('.')}"
        )
        if error.verify_code in _OTHER_NAME:
            return (
                f"{said}; it has other names: add this one with fedjoint keys KEYS --host {host}, "
                "and copy KEYS/server to the server"
            )
        if error.verify_code in _OTHER_AUTHORITY:
            return f"{said}; {authority} is not of the keys that the server has: copy the right one"
        return f"{said}; make another with fedjoint keys KEYS --host {host}"
    except ssl.SSLError:
        return f"{join(host, port)} speaks no TLS: start the server with --keys"
    except OSError:
        return None


def speaks_tls(host: str, port: int) -> bool:
    """Return whether a server answers with TLS, whoever signed its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=5.0) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except OSError:
        return False
