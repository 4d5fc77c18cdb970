"""What is done every so often goes on after an error, and ends when it is left."""

import logging
import threading

from fedjoint._util.often import Often


def test_an_error_is_said_once_and_ends_nothing(caplog):
    times, done = [], threading.Event()

    def act():
        times.append(1)
        if len(times) > 3:
            done.set()
            return
        raise OSError("gone")

    with caplog.at_level(logging.ERROR, "fedjoint"), Often(act, 0.0, "looking") as often:
        assert done.wait(60)
        often.join()
    assert [record.message for record in caplog.records] == [
        "looking: this fails just now, and is tried again"
    ]
    after = len(times)
    assert not often._thread.is_alive() and len(times) == after
