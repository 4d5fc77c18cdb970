"""The messages between server and nodes, and their version.

A request carries the backbone once (``backbone``), what the strategy sends along
(``broadcast``), the plan (``plan``: who trains, in which block, with which weight) and a
``config``. A reply carries stacked ``updates``, a ``report`` with a row per client, and a
``config``. Heads are in neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from io import BytesIO
from math import prod
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedjoint.errors import UserError
from fedjoint.protocol.arrays import Array as OwnArray
from fedjoint.protocol.arrays import to_arrays, to_record

#: Changes whenever the messages do: nodes and servers of different schemas refuse each other.
SCHEMA = 3

VERSION = metadata.version("fedjoint")

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

#: Code of the error for a node that died: what it had not saved is lost.
NODE_DIED = 1001

TRAIN, EVALUATE, QUERY, PERSIST = "train", "evaluate", "query", "query.persist"


def pack(config: Mapping[str, Any], **arrays: Any) -> RecordDict:
    """Return a message's content.

    Args:
        config: values that JSON can hold.
        arrays: record name -> named tensors or arrays, or a ready record.
    """
    content = RecordDict(
        {"config": ConfigRecord({"schema": SCHEMA, "version": VERSION, "json": json.dumps(config)})}
    )
    for name, values in arrays.items():
        content[name] = values if isinstance(values, ArrayRecord) else to_record(values)
    return content


def settings(message: Message) -> dict[str, Any]:
    """Return the ``config`` of a message.

    Raises:
        UserError: it is not a message of this schema.
    """
    records = message.content.config_records
    if "config" not in records or "schema" not in records["config"]:
        raise UserError("not a fedjoint message; start the app that belongs to this run")
    record = records["config"]
    if record["schema"] != SCHEMA:
        raise UserError(
            f"message schema {record['schema']!r} from the other side, {SCHEMA} here: "
            "install the same version of fedjoint on server and nodes"
        )
    if (version := str(record.get("version"))) != VERSION:
        raise UserError(
            f"fedjoint {version} on the other side, {VERSION} here: install the same "
            "version on server and nodes"
        )
    try:
        values = json.loads(str(record["json"]))
    except (KeyError, json.JSONDecodeError) as error:
        raise UserError(f"damaged message: {error}") from None
    if not isinstance(values, dict):
        raise UserError("damaged message: its config is not a table")
    return values


def arrays(message: Message, name: str) -> dict[str, np.ndarray]:
    """Return the named arrays of one record of a message, empty where there is none.

    Raises:
        UserError: an array cannot be read.
    """
    records = message.content.array_records
    if name not in records:
        return {}
    try:
        for array in records[name].values():
            _check_size(array)
        return to_arrays(records[name])
    except (ValueError, TypeError, EOFError) as error:
        raise UserError(f"damaged arrays in {name!r}: {error}") from None


def _check_size(array: Array) -> None:
    """Raise ValueError unless an array's bytes are a NumPy file of the size that it claims.

    NumPy itself makes room for what a header claims, before it looks for the numbers.
    """
    if isinstance(array, OwnArray):
        return  # it never was bytes
    file = BytesIO(array.data)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"NumPy format {version}")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject or prod(shape) * dtype.itemsize != len(array.data) - file.tell():
        raise ValueError(f"{len(array.data)} bytes do not hold {shape} of {dtype}")
