"""Flower's mods on a node: every client's update passes them in a message of its own.

A message of ours has all clients of a node, and mods expect the arrays of one. So what a client was
sent and what it has learnt are put into messages as Flower's own strategies have them, and what
comes out of the mods is its update.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor

from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.layout import Layout
from fedjoint.protocol.arrays import to_arrays
from fedjoint.registry import load_object

Call = Callable[[Message, Context], Message]

#: (message, context, what comes next) -> reply, as ``ClientApp(mods=[...])`` takes them.
Mod = Callable[[Message, Context, Call], Message]


class Mods:
    """Passes updates through mods, of which the first one is the outermost.

    They come after training: what a mod changes in the message that it is given has no effect. Nor
    do they see losses and metrics, which are told as without them.

    Args:
        mods: by reference.
        context: of the node.
    """

    def __init__(self, mods: dict[str, Mod], context: Context) -> None:
        self._mods, self._context = mods, context
        self._metadata: Any = None

    def answer(self, message: Message) -> None:
        """Take the addresses of what the node answers for the messages of its clients."""
        self._metadata = message.metadata

    def check(self, method: str, besides: Collection[str]) -> None:
        """Refuse to send what passes by the mods.

        Args:
            method: the local method.
            besides: what clients send beside their updates.

        Raises:
            UserError: it sends something.
        """
        if besides:
            raise UserError(
                f"the node's mods ({', '.join(self._mods)}) see updates alone, and {method} sends "
                f"{', '.join(besides)} beside them: take another strategy, or leave --mod out"
            )

    def apply(self, layout: Layout, received: Tensor, update: Tensor, examples: np.ndarray) -> None:
        """Replace updates by what comes out of the mods.

        Args:
            layout: of the shared parameters and buffers.
            received: ``[c, P + B]`` or ``[P + B]``, what the clients were sent.
            update: ``[c, P + B]``, changed in place.
            examples: ``[c]``, training examples of each.

        Raises:
            UserError: a mod fails, or returns something else than such arrays.
        """
        sent = received.expand_as(update)
        for own, start, count in zip(update, sent, examples.tolist(), strict=True):
            own.copy_(self._passed(layout, start, start + own, count) - start)

    def _passed(self, layout: Layout, start: Tensor, trained: Tensor, examples: int) -> Tensor:
        """Return the ``[P + B]`` of a client as the mods have it."""
        content = RecordDict({"arrays": _record(layout, start), "config": ConfigRecord()})
        asked = Message(content, metadata=self._metadata)  # type: ignore[call-overload]

        def app(message: Message, _: Context) -> Message:
            learnt = RecordDict({"arrays": _record(layout, trained)})
            learnt["metrics"] = MetricRecord({"num-examples": examples})
            return Message(learnt, reply_to=message)

        call: Call = app
        for mod in reversed(self._mods.values()):
            call = _before(mod, call)
        what = f"mods {', '.join(self._mods)}"
        try:
            reply = call(asked, self._context)
        except ANYTHING as error:  # a mod may raise anything
            raise UserError(f"{what}: {said(error)}") from error
        if reply.has_error():
            raise UserError(f"{what}: {reply.error.reason}")
        return _read(what, layout, reply).to(start)


def _before(mod: Mod, following: Call) -> Call:
    return lambda message, context: mod(message, context, following)


def load_mods(references: Sequence[str]) -> dict[str, Mod]:
    """Return mods by reference, ``package.module:name`` or ``file.py:name``.

    Raises:
        UserError: there is none, or it cannot be called.
    """
    mods: dict[str, Mod] = {}
    for reference in references:
        found = load_object(reference)
        if not callable(found) or isinstance(found, type):
            raise UserError(
                f"mod {reference}: it is no function or object to call: make one, as in "
                "limit = LocalDpMod(...), and name that"
            )
        mods[reference] = found
    return mods


def _record(layout: Layout, flat: Tensor) -> ArrayRecord:
    views = layout.views(flat)
    return ArrayRecord({name: Array(view.cpu().numpy()) for name, view in views.items()})


def _read(what: str, layout: Layout, reply: Message) -> Tensor:
    records: Sequence[ArrayRecord] = list(reply.content.array_records.values())
    if len(records) != 1:
        raise UserError(f"{what}: the reply has {len(records)} records of arrays, not one")
    arrays = to_arrays(records[0])
    for name, shape in layout.shapes.items():
        if name not in arrays or arrays[name].shape != tuple(shape):
            raise UserError(f"{what}: the reply has no {name} of shape {tuple(shape)}")
    parts = [torch.from_numpy(np.array(arrays[name])).reshape(-1) for name in layout.shapes]
    return torch.cat(parts)
