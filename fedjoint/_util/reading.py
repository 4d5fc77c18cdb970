"""Files that are read whole: regular ones, and no more than there is memory for."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

_PART = 1 << 20


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of a file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read, is no regular file (a device or a pipe may have no end), or
            has more.
    """
    # A pipe that nobody writes to must not keep us waiting.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(number, "rb") as file:
        found = os.fstat(number)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        whole, size = io.BytesIO(), found.st_size
        while size <= most and (part := file.read(_PART)):
            whole.write(part)
            size = max(size, whole.tell())  # it may grow
        if size > most:
            raise OSError(errno.EFBIG, f"it holds more than {most / 1e9:.3g} GB", str(path))
        return whole.getvalue()
