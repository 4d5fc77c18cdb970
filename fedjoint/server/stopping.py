"""Stopping a run in order: at its last round that is done, from which it can go on."""

from __future__ import annotations


class StoppedError(BaseException):
    """Somebody asked the run to stop, at a time at which nothing of its round counts yet.

    No ``except Exception`` of a plug-in's own code catches it.
    """
