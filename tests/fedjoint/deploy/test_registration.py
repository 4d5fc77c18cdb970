"""Keys are registered soon after they are in the folder, whatever happens to it."""

import errno
import threading
from pathlib import Path

from fedjoint.deploy import registration
from fedjoint.deploy.keys import make_keys
from fedjoint.deploy.registration import registrar


class Known:
    """A server that notes whose key it is given."""

    def __init__(self):
        self.names, self.told = [], threading.Event()

    def nodes(self):
        return []

    def register(self, name, key):
        self.names.append(name)
        self.told.set()
        return True


def test_a_key_that_cannot_be_looked_at_ends_nothing(tmp_path, monkeypatch):
    make_keys(tmp_path, ["localhost"], ["a"])
    own, gone = Path.stat, []

    def stat(path, **options):
        if path.name == "node.pub" and not gone:
            gone.append(path)
            raise OSError(errno.EIO, "a failing disk")
        return own(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(registration, "_LOOK", 0.01)
    server = Known()
    with registrar(server, tmp_path) as looking:
        assert server.told.wait(60)
        looking.join()
    assert gone and server.names[0] == "a"
