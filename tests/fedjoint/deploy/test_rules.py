"""Addresses and keys, without any process."""

import datetime
import ssl
import stat

import pytest
from cryptography import x509

from fedjoint.cli.common import own_ids
from fedjoint.deploy.address import check_keys, is_loopback, parse
from fedjoint.deploy.keys import make_keys
from fedjoint.deploy.server import control, run_server
from fedjoint.errors import UserError

WRONG_ADDRESSES = ["host", ":8000", "host:", "host:x", "host:0", "host:70000", "1:2:3", "a\n:80"]
WRONG_ADDRESSES += ["[]:80", "a\u202e:80", f"host:{'9' * 5000}"]


@pytest.mark.parametrize("text", WRONG_ADDRESSES)
def test_an_address_is_host_and_port(text):
    with pytest.raises(UserError, match="HOST:PORT"):
        parse(text)


def test_addresses():
    assert parse("[::1]:80") == ("::1", 80)
    assert [is_loopback(h) for h in ("127.0.0.9", "::1", "localhost")] == [True] * 3
    assert not any(is_loopback(h) for h in ("0.0.0.0", "10.0.0.1", "joint.example"))


def test_beyond_the_loopback_it_takes_keys_or_a_flag(tmp_path):
    check_keys("127.0.0.1", None, False, ("ca.pem",))
    check_keys("joint.example", None, True, ("ca.pem",))
    with pytest.raises(UserError, match="--insecure"):
        check_keys("0.0.0.0", None, False, ("ca.pem",))
    with pytest.raises(UserError, match="not both"):
        check_keys("0.0.0.0", tmp_path, True, ("ca.pem",))
    with pytest.raises(UserError, match=r"ca\.pem.*fedjoint keys"):
        check_keys("127.0.0.1", tmp_path, False, ("ca.pem",))


@pytest.mark.parametrize("host", ["a\u202eb", "müller.example", "a b", "", "x" * 254, "1.2.3.4/8"])
def test_a_host_that_is_none_is_refused_and_nothing_is_written(host, tmp_path):
    with pytest.raises(UserError, match=r"host .* give an address, or a name"):
        make_keys(tmp_path / "keys", ["joint.example", host], ["a"])
    assert not (tmp_path / "keys").exists()


def test_a_host_may_have_a_long_name(tmp_path):
    host = f"{'a' * 60}.{'b' * 60}.example"
    make_keys(tmp_path, [host], [])
    found = x509.load_pem_x509_certificate((tmp_path / "server/server.pem").read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert host in names.get_values_for_type(x509.DNSName)


def test_keys_fit_each_other_and_are_kept(tmp_path):
    make_keys(tmp_path, ["joint.example", "10.1.2.3"], ["a"])
    before = (tmp_path / "nodes/a/node.key").read_bytes()
    make_keys(tmp_path, [], ["a", "b"])
    assert (tmp_path / "nodes/a/node.key").read_bytes() == before
    authority = x509.load_pem_x509_certificate((tmp_path / "nodes/b/ca.pem").read_bytes())
    server = x509.load_pem_x509_certificate((tmp_path / "server/server.pem").read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "joint.example" in names.get_values_for_type(x509.DNSName)
    assert {str(a) for a in names.get_values_for_type(x509.IPAddress)} == {
        "10.1.2.3",
        "127.0.0.1",
        "::1",
    }
    now = datetime.datetime.now(datetime.UTC)
    assert server.not_valid_before_utc < now < server.not_valid_after_utc
    ssl.create_default_context(cafile=tmp_path / "nodes/a/ca.pem").load_verify_locations(
        tmp_path / "server/ca.pem"
    )
    for key in ("ca.key", "server/server.key", "nodes/a/node.key"):
        assert stat.S_IMODE((tmp_path / key).stat().st_mode) == 0o600


def test_the_authority_is_never_replaced(tmp_path):
    make_keys(tmp_path, ["joint.example"], ["a"])
    signer = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.key").unlink()  # offline
    make_keys(tmp_path, [], ["b"])
    trusted = (tmp_path / "ca.pem").read_bytes()
    assert (tmp_path / "nodes/b/ca.pem").read_bytes() == trusted
    assert (tmp_path / "nodes/a/ca.pem").read_bytes() == trusted
    with pytest.raises(UserError, match=r"ca\.key.*not here"):
        make_keys(tmp_path, ["other.example"], [])
    (tmp_path / "ca.key").write_bytes(signer)
    (tmp_path / "ca.pem").unlink()
    for hosts, nodes in ((["other.example"], []), ([], ["c"])):
        with pytest.raises(UserError, match=r"ca\.pem.*not here"):
            make_keys(tmp_path, hosts, nodes)
    assert (tmp_path / "ca.key").read_bytes() == signer
    (tmp_path / "ca.pem").write_text("?")
    with pytest.raises(UserError, match=r"ca\.pem: not a certificate"):
        make_keys(tmp_path, ["other.example"], [])


def test_a_server_gets_another_name_and_keeps_its_key_and_names(tmp_path):
    make_keys(tmp_path, ["joint.example"], [])
    before = (tmp_path / "server/server.key").read_bytes()
    make_keys(tmp_path, ["10.1.2.3"], [])
    assert (tmp_path / "server/server.key").read_bytes() == before
    server = x509.load_pem_x509_certificate((tmp_path / "server/server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "joint.example" in names.get_values_for_type(x509.DNSName)
    assert "10.1.2.3" in map(str, names.get_values_for_type(x509.IPAddress))
    assert stat.S_IMODE((tmp_path / "server/server.key").stat().st_mode) == 0o600


def test_a_node_name_is_no_path(tmp_path):
    with pytest.raises(UserError, match=r"\.\./evil"):
        make_keys(tmp_path, ["h"], ["../evil"])


@pytest.mark.parametrize("clients", ["", "1,1", "-1", "one"])
def test_client_ids(clients):
    with pytest.raises(UserError, match="--clients"):
        own_ids(clients)
    assert own_ids("2, 0") == [2, 0]


@pytest.mark.parametrize("ids", ["", "0,0", "-1", "9" * 30, f"0,{2**40 + 1}"])
def test_a_client_s_id_is_what_a_message_may_hold(ids):
    with pytest.raises(UserError, match="--clients: give different ids from 0 to"):
        own_ids(ids)


def test_a_folder_without_keys_is_named(tmp_path):
    with pytest.raises(UserError, match=r"server/ca\.pem: no such file; make keys"):
        control("127.0.0.1:8000", tmp_path)
    with pytest.raises(UserError, match="make keys"):
        run_server("127.0.0.1:8000", tmp_path / "state", tmp_path, False)
    assert not (tmp_path / "state").exists()
