"""All that the process of a run says is in our format."""

import logging
import threading

from fedjoint.flower.serverapp import Lines, _say


def test_what_is_printed_is_logged_line_by_line(caplog):
    caplog.set_level(logging.INFO, "fedjoint")
    out = Lines()
    print("Successfully installed", "an app", file=out)
    print("half", end="", file=out)
    assert caplog.messages == ["Successfully installed an app"]
    print(" a line\n\nand another", file=out)
    assert caplog.messages[1:] == ["half a line", "and another"]


def test_a_thread_that_fails_is_one_line(caplog, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", _say)

    def fail():
        raise OSError("the server has\nended the run")

    thread = threading.Thread(target=fail, name="heartbeat")
    thread.start()
    thread.join()
    assert caplog.messages == ["heartbeat ended: OSError: the server has"]
