"""Examples that clients give away, without their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from fedjoint.data.around import Around
from fedjoint.data.base import Client, Federation
from fedjoint.errors import UserError
from fedjoint.model.stream import loaded
from fedjoint.model.tree import Input, cat


class WithoutPublic(Around):
    """``data``, whose clients train without the last of their examples, which become public.

    Args:
        data: the clients.
        share: of each client's training examples, below one; rounded down.
        unseen: clients that are kept out of training: they give nothing away.
    """

    def __init__(self, data: Federation, share: float, unseen: Sequence[int] = ()) -> None:
        super().__init__(data)
        given = np.floor(share * data.sizes).astype(np.int64)
        given[list(unseen)] = 0
        self.sizes = data.sizes - given

    def client(self, index: int) -> Client:
        """Return the data of client ``index``."""
        client = super().client(index)
        return replace(client, train=client.train.take(torch.arange(int(self.sizes[index]))))

    def public(self) -> Input:
        """``[n, ...]``, the inputs that clients give away, client by client.

        Raises:
            UserError: there are none.
        """
        given = np.flatnonzero(self._data.sizes > self.sizes).tolist()
        if not given:
            raise UserError("data.public_share leaves no example to be public: raise it")
        return cat([self._given(index) for index in given])

    def _given(self, index: int) -> Input:
        train = self._data.client(index).train
        return loaded(train.take(torch.arange(int(self.sizes[index]), len(train))).x)
