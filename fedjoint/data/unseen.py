"""Clients that are kept out of training, to see how well what is learnt serves new ones."""

from __future__ import annotations

import numpy as np

from fedjoint.config.schema import Config
from fedjoint.data.around import Around
from fedjoint.data.base import Client, Federation
from fedjoint.errors import UserError
from fedjoint.randomness import Purpose, derive


class Seen(Around):
    """The clients of ``data``, all under their ids; some have neither tasks nor examples.

    Args:
        data: the clients.
        unseen: ``[n]`` int64, who is kept out.
    """

    def __init__(self, data: Federation, unseen: np.ndarray) -> None:
        super().__init__(data)
        self.sizes, self.tasks = data.sizes.copy(), data.tasks.copy()
        self.sizes[unseen], self.tasks[unseen] = 0, False
        self._unseen = frozenset(unseen.tolist())

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        client = super().client(index)
        return client.without_examples() if index in self._unseen else client


def seen(data: Federation, config: Config) -> Federation:
    """Return the clients that may train.

    Raises:
        UserError: nobody is left.
    """
    return Seen(data, unseen(data, config)) if config.data.unseen_clients else data


def unseen(data: Federation, config: Config) -> np.ndarray:
    """Return ``[n]`` int64, ascending: who of ``data`` is kept out, drawn by seed and client alone.

    Raises:
        UserError: nobody is left.
    """
    count, able = config.data.unseen_clients, np.flatnonzero(data.sizes > 0)
    if count >= len(able):
        raise UserError(
            f"data.unseen_clients = {count} leaves nobody to train, as {len(able)} clients have "
            "training examples: lower it"
        )
    drawn = derive(config.seed, Purpose.UNSEEN, able)
    return np.sort(able[np.argsort(drawn, kind="stable")[:count]])
