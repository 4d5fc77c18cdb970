"""What travels, as Flower carries it: a ``config`` of JSON, and records of named arrays.

:mod:`fedjoint.protocol.requests` and its neighbours say what is in which message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from io import BytesIO
from math import prod
from typing import Any, TypeVar, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from pydantic import TypeAdapter, ValidationError

from fedjoint._util.wording import plain
from fedjoint.errors import OpenError
from fedjoint.protocol.arrays import Array as OwnArray
from fedjoint.protocol.arrays import to_arrays, to_record
from fedjoint.protocol.checks import Number

#: Changes whenever the messages do: nodes and servers of different schemas refuse each other.
SCHEMA = 12

VERSION = metadata.version("fedjoint")

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

#: Code of the error for a node that died: what it had not saved is lost.
NODE_DIED = 1001

T = TypeVar("T")
Record = TypeVar("Record", ArrayRecord, ConfigRecord)

_Index = tuple[tuple[str, str, str, tuple[Number, ...], Number], ...]

_BUNDLE, _INDEX = "bundle", "index"
_TEXT = 1 << 28  # most characters of JSON: what a node of a million clients has to say
_SMALL = 1 << 18  # bytes: larger arrays travel on their own
_FULL = 1 << 24  # bytes: so do those that a bundle of this size has no room for


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


def bundle(content: RecordDict) -> RecordDict:
    """Return a message's content with its small arrays in one, which :func:`arrays` reads alike.

    A deployment hands every record and every array of a message from process to process in
    requests of their own, each of which takes a server some ten milliseconds. So they are in the
    ``config``, which travels anyway.
    """
    parts: list[bytes] = []
    room = _FULL
    index: list[tuple[str, str, str, list[int], int]] = []
    bundled = RecordDict()
    for name, record in content.array_records.items():
        large = ArrayRecord()
        for key, array in record.items():
            if len(data := array.data) > min(_SMALL, room):
                large[key] = array
            else:
                room -= len(data)
                index.append((name, key, array.dtype, list(array.shape), len(data)))
                parts.append(data)
        if large:
            bundled[name] = large
    config = _record(content, "config", ConfigRecord)
    bundled["config"] = ConfigRecord(
        {**config, _INDEX: json.dumps(index), _BUNDLE: b"".join(parts)}
    )
    return bundled


def read(kind: type[T], message: Message) -> T:
    """Return the ``config`` of a message as a dataclass ``kind``.

    Raises:
        UserError: it is not a message of this schema, or a value of it is missing, of another
            type than the dataclass states, or out of its bounds.
    """
    try:
        values: T = _adapter(cast(Any, kind)).validate_json(_json(message), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        found = "" if first["type"] == "missing" else f", found {plain(first['input'])}"
        raise damaged(f"{where!r}: {first['msg']}{found}") from None
    return values


def _json(message: Message) -> str:
    record = _record(message.content, "config", ConfigRecord)
    if "schema" not in record:
        raise OpenError("not a fedjoint message; start the app that belongs to this run")
    if record["schema"] != SCHEMA:
        raise OpenError(
            f"message schema {record['schema']!r} from the other side, {SCHEMA} here: "
            "install the same version of fedjoint on server and nodes"
        )
    if (version := str(record.get("version"))) != VERSION:
        raise OpenError(
            f"fedjoint {version} on the other side, {VERSION} here: install the same "
            "version on server and nodes"
        )
    if "json" not in record:
        raise damaged("its config is empty")
    text = record["json"]
    if not isinstance(text, str) or len(text) > _TEXT:
        raise damaged("its config is no text, or beyond all measure")
    return text


def _record(content: RecordDict, name: str, kind: type[Record]) -> Record:
    """Return one record of a content, empty where there is none of that kind.

    Flower's ``array_records`` and ``config_records`` check all records again at every access.
    """
    found = content.get(name)
    return found if isinstance(found, kind) else kind()


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def arrays(message: Message, name: str) -> dict[str, np.ndarray]:
    """Return the named arrays of one record of a message, empty where there is none.

    Raises:
        UserError: an array cannot be read.
    """
    try:
        found = dict(_record(message.content, name, ArrayRecord)) | _bundled(message, name)
        for array in found.values():
            _check_size(array)
        return to_arrays(found)
    except (ValueError, TypeError, KeyError, EOFError) as error:
        raise OpenError(f"damaged arrays in {name!r}: {error}") from None


def _bundled(message: Message, name: str) -> dict[str, Array]:
    """Return the arrays of one record that are in the message's bundle."""
    config, start = _record(message.content, "config", ConfigRecord), 0
    found: dict[str, Array] = {}
    if _BUNDLE not in config or _INDEX not in config:
        return found
    data = config[_BUNDLE]
    if not isinstance(data, bytes):
        raise ValueError("its bundle is not bytes")
    for record, key, dtype, shape, size in _adapter(_Index).validate_json(str(config[_INDEX])):
        if record == name:
            part = data[start : start + size]
            found[key] = Array(dtype, tuple(shape), "numpy.ndarray", part)
        start += size
    return found


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


def damaged(what: str) -> OpenError:
    """Return the error for a message that nobody who means well sends."""
    return OpenError(f"damaged message: {what}")
