"""Structured logs: one JSON object per line."""

from __future__ import annotations

import datetime
import json
import logging
from pathlib import Path
from typing import Any

from fedjoint.errors import UserError


class JsonLines(logging.Formatter):
    """Formats a record as ``{"time", "level", "logger", "message"}``, time in UTC.

    What is logged with :func:`event` has ``event`` and its details beside these.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "details", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def event(logger: logging.Logger, level: int, kind: str, text: str, **details: Any) -> None:
    """Log that something of a ``kind`` happened: ``text`` for people, ``details`` for programs."""
    logger.log(level, "%s", text, extra={"details": {"event": kind, **details}})


def log_to(path: Path) -> None:
    """Append what fedjoint logs to ``path`` as well; the console's messages stay as they are.

    Raises:
        UserError: ``path`` cannot be written.
    """
    logger = logging.getLogger("fedjoint")
    logger.setLevel(logging.INFO)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; make its folder writable for the user of this program"
        ) from None
    known = [h.baseFilename for h in logger.handlers if isinstance(h, logging.FileHandler)]
    if handler.baseFilename in known:
        handler.close()
        return
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
