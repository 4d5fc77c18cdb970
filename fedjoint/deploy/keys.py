"""The keys of a deployment: an authority, the server's certificate, and a key pair per node."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedjoint.errors import UserError
from fedjoint.flower.badges import comment, read_badge
from fedjoint.runs.files import write_files

_YEARS = 5
_LONGEST = 64  # characters of the name of whom a certificate is; the whole is beside it


def make_keys(
    folder: Path,
    hosts: Sequence[str],
    nodes: Sequence[str],
    clients: Mapping[str, Collection[int]] = MappingProxyType({}),
) -> None:
    """Write what a deployment needs to trust itself. Existing keys are kept, so nodes can be added.

    A server takes a node for the one of its key alone, and only with the clients of that key.

    ``folder/ca.key`` signs and stays offline; only a server's certificate needs it.
    ``folder/server`` (``ca.pem``, ``server.pem``, ``server.key``) goes to the server,
    ``folder/nodes/NAME`` (``ca.pem``, ``node.key``, ``node.pub``) to that node. Keys are on the
    curve P-384.

    Args:
        folder: where the keys go; private ones are readable by their owner alone.
        hosts: names and addresses under which nodes reach the server, beside those that its
            certificate has already.
        nodes: names of the nodes.
        clients: node -> ids of its clients; without, those of a key stay what they were, or the
            node may have any.

    Raises:
        UserError: a node's name cannot be that of a folder, or a host's is none, a part of the
            authority is missing or damaged, or the folder cannot be written.
    """
    for name in nodes:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
            raise UserError(
                f"node {name!r}: use letters, digits, dots and dashes in its name, 200 at most"
            )
    for host in hosts:
        _host(host)
    try:
        if not (folder / "ca.key").exists() and not (folder / "ca.pem").exists():
            _make_authority(folder)
        authority = _certificate_in(folder / "ca.pem", "the certificate that nodes trust")
        if hosts:
            _server(folder / "server", authority, _key_in(folder / "ca.key"), hosts)
        for name in nodes:
            _node(folder / "nodes" / name, authority, clients.get(name))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None


def _certificate_in(path: Path, what: str) -> x509.Certificate:
    if not path.exists():
        raise UserError(f"{path}: {what} is not here; bring it back, or use another folder")
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise UserError(f"{path}: not a certificate; restore it from a backup") from None


def _key_in(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        raise UserError(
            f"{path}: a server's certificate takes the key that signs, which is not here; bring "
            "it back, or use another folder"
        )
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise UserError(f"{path}: not a key that fedjoint keys made; restore it from a backup")
    return found


def _make_authority(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedjoint authority")])
    own = (
        _certificate(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_others=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA384())
    )
    contents = {"ca.key": _pem(key), "ca.pem": own.public_bytes(serialization.Encoding.PEM)}
    write_files(folder, contents, private=["ca.key"])


def _server(
    folder: Path,
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
) -> None:
    if authority.public_key() != signer.public_key():
        raise UserError(f"{folder.parent}: ca.key and ca.pem are not of one authority")
    known = (folder / "server.key").exists()
    key = _key_in(folder / "server.key") if known else ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:_LONGEST])])
    # Flower's own processes on the server reach it by the loopback.
    names = [_host(host) for host in (*hosts, "localhost", "127.0.0.1", "::1")]
    if (folder / "server.pem").exists():
        before = _certificate_in(folder / "server.pem", "the server's certificate")
        names += before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    certificate = (
        _certificate(name, authority.subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName(dict.fromkeys(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_others=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
        .sign(signer, hashes.SHA384())
    )
    contents = {
        "server.key": _pem(key),
        "server.pem": certificate.public_bytes(serialization.Encoding.PEM),
        "ca.pem": authority.public_bytes(serialization.Encoding.PEM),
    }
    write_files(folder, contents, private=["server.key"])


def _node(folder: Path, authority: x509.Certificate, clients: Collection[int] | None) -> None:
    said = comment(folder.name, clients).encode()
    if (folder / "node.key").exists():
        if clients is not None:
            public = serialization.load_pem_public_key(read_badge(folder / "node.pub")[0])
            write_files(folder, {"node.pub": _openssh(public) + b" " + said + b"\n"})
        return
    key = ec.generate_private_key(ec.SECP384R1())
    # The formats that a node reads, see fedjoint.flower.fleet.
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    contents = {
        "node.key": private,
        "node.pub": _openssh(key.public_key()) + b" " + said + b"\n",
        "ca.pem": authority.public_bytes(serialization.Encoding.PEM),
    }
    write_files(folder, contents, private=["node.key"])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
    )


def _usage(*, sign_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_others,
        key_cert_sign=sign_others,
        crl_sign=sign_others,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _openssh(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_][A-Za-z0-9._-]{0,251}", host):
            raise UserError(
                f"host {host!r}: give an address, or a name of letters, digits, dots and dashes "
                "(of others, the form that begins with xn--)"
            ) from None
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
