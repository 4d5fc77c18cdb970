"""A sign of life goes on while the server is busy, and ends with it."""

import threading
from pathlib import Path

from fedjoint.config.schema import Config
from fedjoint.server import callbacks


def test_it_beats_until_the_end_whatever_a_beat_raises(monkeypatch, caplog):
    monkeypatch.setattr(callbacks, "EVERY", 0.001)
    thrice, beats = threading.Event(), []

    def beat():
        beats.append(threading.current_thread())
        if len(beats) == 2:
            raise OSError("disk full")
        if len(beats) >= 3:
            thrice.set()

    heart = callbacks.Heartbeat(beat)
    heart.on_run_begin(Config(), Path())
    assert beats == [threading.current_thread()]
    assert thrice.wait(60)
    heart.on_run_end(None)
    assert "no sign of life: disk full" in caplog.text
    count = len(beats)
    heart.beat()
    assert len(beats) == count + 1 and beats[-1] is threading.current_thread()
    heart.beat(after=600)
    assert len(beats) == count + 1
    assert not any(thread.is_alive() for thread in set(beats[1:-1]))
