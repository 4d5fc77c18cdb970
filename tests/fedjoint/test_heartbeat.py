"""A sign of life goes on while the server is busy, and ends with it."""

import threading

from fedjoint.server import heartbeat


def test_it_beats_until_the_end_whatever_a_beat_raises(monkeypatch, caplog):
    monkeypatch.setattr(heartbeat, "EVERY", 0.001)
    thrice, beats = threading.Event(), []

    def beat():
        beats.append(threading.current_thread())
        if len(beats) == 1:
            raise OSError("disk full")
        if len(beats) >= 3:
            thrice.set()

    with heartbeat.Heartbeat(beat) as heart:
        assert thrice.wait(60)
    assert "no sign of life: disk full" in caplog.text
    count = len(beats)
    heart.beat()
    assert len(beats) == count + 1 and beats[-1] is threading.current_thread()
    heart.beat(after=600)
    assert len(beats) == count + 1
    assert not any(thread.is_alive() for thread in set(beats[:-1]))
