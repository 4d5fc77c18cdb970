"""Files that belong together: all of them or none, wherever the disk fails."""

import itertools
import stat

import pytest
from support.disk import FullDisk, watch
from support.folders import contents

from fedjoint.deploy.keys import make_keys
from fedjoint.errors import UserError
from fedjoint.runs.files import drafted, write_bytes, write_files

OLD = {"card": b"old", "weights": b"old too", "stale": b"of the old alone"}
NEW = {"card": b"new", "weights": b"new too", "stale": None, "deep/down": b"a folder more"}


def lines(error):
    return str(error.value).splitlines()


def every_failure(monkeypatch, tmp_path, act, stays):
    """Do ``act`` again and again on a disk that fails at its first change, its second, ...

    Yields:
        After each failure, with the disk working again; until it does not fail.
    """
    for number in itertools.count(1):
        disk = FullDisk(number, stays)
        with monkeypatch.context() as patch:
            watch(patch, tmp_path, disk)
            try:
                act()
            except UserError as error:
                assert "No space left on device" in str(error) and "\n" not in str(error)
        if not disk.reached:
            assert number > 3
            return
        yield


@pytest.mark.parametrize("stays", [True, False])
def test_a_set_is_all_there_or_as_it_was(tmp_path, monkeypatch, stays):
    folder = tmp_path / "set"
    write_files(folder, OLD)
    before = contents(tmp_path)
    for _ in every_failure(monkeypatch, tmp_path, lambda: write_files(folder, NEW), stays):
        assert contents(tmp_path) == before
    assert {n: (folder / n).read_bytes() for n in contents(folder)} == {
        name: data for name, data in NEW.items() if data is not None
    }


def test_what_did_not_exist_does_not_exist_after_a_failure(tmp_path, monkeypatch):
    def act():
        write_files(tmp_path / "a" / "b", NEW)

    for _ in every_failure(monkeypatch, tmp_path, act, stays=True):
        assert not list(tmp_path.iterdir())


def test_a_file_is_the_old_or_the_new(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    for _ in every_failure(monkeypatch, tmp_path, lambda: write_bytes(path, b"new"), True):
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
        assert path.read_bytes() in (b"old", b"new")
    assert path.read_bytes() == b"new"


def test_a_draft_takes_the_place_of_the_set_before(tmp_path):
    write_files(tmp_path, OLD)
    with drafted(tmp_path, ["card", "stale"]) as draft:
        (draft / "card").write_bytes(b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "card": b"new",
        "weights": b"old too",
    }
    before = contents(tmp_path)
    with pytest.raises(RuntimeError), drafted(tmp_path) as draft:
        (draft / "card").write_bytes(b"newer")
        raise RuntimeError
    assert contents(tmp_path) == before


@pytest.mark.parametrize("write", [write_bytes, lambda path, data: write_files(path, {"a": data})])
def test_what_is_in_the_way_is_said_in_one_line(tmp_path, write):
    (tmp_path / "folder" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="folder") as error:
        write(tmp_path / "folder", b"")
    assert len(lines(error)) == 1 and list((tmp_path / "folder" / "a").iterdir()) == []


def test_keys_are_made_together_and_are_their_owners(tmp_path, monkeypatch):
    def act():
        make_keys(tmp_path / "keys", ["joint.example"], ["a"])

    sets = {"": {"ca.key", "ca.pem"}, "server": {"server.key", "server.pem", "ca.pem"}}
    sets["nodes/a"] = {"node.key", "node.pub", "ca.pem"}
    for _ in every_failure(monkeypatch, tmp_path, act, stays=True):
        for place, names in sets.items():
            folder = tmp_path / "keys" / place
            left = {p.name for p in folder.iterdir() if p.is_file()} if folder.exists() else set()
            assert left in (set(), names)
    for key in tmp_path.rglob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(list(tmp_path.rglob("*.key"))) == 3
