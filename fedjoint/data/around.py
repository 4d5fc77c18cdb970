"""A federation that is another's, but for what a subclass changes."""

from __future__ import annotations

from fedjoint.data.base import Client, Federation


class Around:
    """The clients of ``data``, under their positions there.

    Args:
        data: the clients.
    """

    def __init__(self, data: Federation) -> None:
        self._data, self.task_names = data, data.task_names
        self.sizes, self.tasks = data.sizes, data.tasks
        #: what inputs and classes are called, see :class:`fedjoint.data.dataset.Dataset`
        self.legend: tuple[str, ...] = getattr(data, "legend", ())

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        return self._data.client(index)
