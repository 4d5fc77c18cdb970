"""A client's data as a federation gives it, looked at where it enters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedjoint.data.base import SPLITS, Client, Examples, Federation
from fedjoint.errors import UserError
from fedjoint.model.stream import Stream
from fedjoint.model.tree import check_tree, first, kind_of


def load_client(data: Federation, place: int) -> Client:
    """Return the data of the client at ``place``.

    Raises:
        UserError: it is no :class:`fedjoint.Client` of tensors, a split has more inputs than
            labels, or the training examples are not as many as ``data.sizes`` says.
    """
    who = f"client {place}"
    try:
        client = data.client(place)
    except SystemExit as error:
        raise UserError(f"{who}: the code of its data calls sys.exit({error.code})") from error
    if not isinstance(client, Client):
        raise UserError(
            f"{who}: its data are {kind_of(client)}: return a fedjoint.Client of train, valid and "
            "test examples"
        )
    for split in SPLITS:
        check_examples(getattr(client, split), f"{who}, {split}")
    if len(client.train) != data.sizes[place]:
        raise UserError(
            f"{who}: it has {len(client.train)} training examples, and data.sizes says "
            f"{data.sizes[place]}, by which clients are weighted"
        )
    return client


def check_examples(examples: Any, whose: str) -> None:
    """Make sure that these are examples: inputs, and labels of as many.

    Raises:
        UserError: they are not.
    """
    if not isinstance(examples, Examples) or not isinstance(examples.y, Mapping):
        raise UserError(f"{whose}: {kind_of(examples)}: give fedjoint.Examples of x and a dict y")
    if not isinstance(examples.x, Stream):
        check_tree(examples.x, f"{whose}: its inputs")
    for name, values in examples.y.items():
        what = f"labels of task {name!r}"
        if not isinstance(values, Tensor):
            raise UserError(
                f"{whose}: its {what} are {kind_of(values)}: give tensors (torch.from_numpy, "
                "torch.tensor)"
            )
        if not values.ndim or len(values) != len(examples):
            x = examples.x
            inputs = (len(x),) if isinstance(x, Stream) else tuple(first(x).shape)
            raise UserError(
                f"{whose}: its {what} are {tuple(values.shape)}, and its inputs {inputs}: give "
                "one for each example"
            )
