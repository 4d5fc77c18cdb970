"""By how much the updates of a client's single tasks differ from its update, as they travel.

Those of a client's tasks sum to zero, so that of its last task stays where it is: a client with T
tasks sends T - 1 further rows, and one with a single task none. Where replies hold means of blocks,
whose clients have the same tasks, so are these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from flwr.app import Message

from fedjoint.config.schema import CompressionConfig
from fedjoint.protocol import wire
from fedjoint.protocol.arrays import to_tensor
from fedjoint.protocol.checks import finite_rows, shaped
from fedjoint.protocol.compression import decode
from fedjoint.protocol.elsewhere import AnyRows, elsewhere, finite_elsewhere


class Seats(NamedTuple):
    """Whose the rows are that travel.

    Attributes:
        owners: ``[k]`` int64, places of clients (or blocks) among all.
        tasks: ``[k]`` int64, the task of each row.
        rests: ``[k]`` int64, the last task of its client.
    """

    owners: np.ndarray
    tasks: np.ndarray
    rests: np.ndarray

    @classmethod
    def of(cls, tasks: np.ndarray, order: np.ndarray) -> Seats:
        """Return the seats of clients, one after the other, and for each task by task.

        Args:
            tasks: ``[n, tasks]`` bool, which tasks each has.
            order: the tasks in the order of the node.
        """
        held = tasks[:, order]
        owners, places = np.nonzero(held)
        last = held.shape[1] - 1 - held[:, ::-1].argmax(1)
        travels = places < last[owners]
        owners, places = owners[travels], places[travels]
        return cls(owners, order[places], order[last[owners]])


@dataclass(frozen=True)
class Received:
    """What a node sent, checked.

    Attributes:
        rows: ``[k, P]`` float32; of blocks, they may be elsewhere.
        seats: whose they are.
        row_bytes: of a row, as it was sent.
    """

    rows: AnyRows
    seats: Seats
    row_bytes: int

    def only(self, owners: np.ndarray) -> Received:
        """Return those of some of the clients (or blocks), numbered anew.

        Args:
            owners: ``[n]`` bool, which of them.
        """
        kept, place = owners[self.seats.owners], owners.cumsum() - 1
        columns = (column[kept] for column in self.seats)
        seats = Seats(*columns)
        return Received(self.rows[kept], seats._replace(owners=place[seats.owners]), self.row_bytes)


def receive(
    message: Message, tasks: np.ndarray, order: np.ndarray, size: int, config: CompressionConfig
) -> Received:
    """Return the deviations in ``message``, decoded.

    Args:
        message: the reply.
        tasks: ``[n, tasks]`` bool, of the clients (or blocks) that count.
        order: the tasks in the order of the node.
        size: P.
        config: how they were to be compressed.

    Raises:
        UserError: they are missing or damaged.
    """
    seats = Seats.of(tasks, order)
    count = len(seats.owners)
    if (away := elsewhere(message, "deviations", (count, size))) is not None:
        finite_elsewhere("the deviation of a task", away, np.ones(count, bool))
        return Received(away, seats, 4 * size)
    sent = wire.arrays(message, "deviations")
    if not count:
        rows = np.zeros((0, size), np.float32)
    elif config.name != "none":
        payload = {n.removeprefix("payload."): to_tensor(a) for n, a in sent.items()}
        rows = decode(payload, count, size, config).numpy()
    else:
        rows = shaped(sent, "deviations", (count, size), "f")
    finite_rows("the deviation of a task", rows, np.ones(count, bool))
    return Received(rows, seats, sum(array.nbytes for array in sent.values()) // max(1, count))
