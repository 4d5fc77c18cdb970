"""Logs: one line each, for people or as JSON, on the terminal and in files that do not grow."""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
from logging.handlers import RotatingFileHandler, WatchedFileHandler
from pathlib import Path
from typing import Any

from fedjoint.errors import UserError

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_LEVEL, _FORMAT = "FEDJOINT_LOG_LEVEL", "FEDJOINT_LOG_FORMAT"
_MOST, _KEPT = 10_000_000, 5  # bytes of a log file, and how many older ones are kept


def choose_logging(level: str, form: str) -> None:
    """Decide how this process logs, and every process that it starts.

    Raises:
        UserError: there is no such level or format.
    """
    for option, value, allowed in (("level", level, LEVELS), ("format", form, FORMATS)):
        if value not in allowed:
            raise UserError(f"--log-{option} {value}: allowed are {', '.join(allowed)}")
    os.environ[_LEVEL], os.environ[_FORMAT] = level, form
    start_logging()


def start_logging() -> None:
    """Log to standard error, as :func:`choose_logging` decided here or in a parent process."""
    level = logging.getLevelNamesMapping()[os.environ.get(_LEVEL, "info").upper()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if os.environ.get(_FORMAT) == "json" else TextLines())
    handler.setLevel(level)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # What others call INFO is no news to an operator; what we do is in our files at any level.
    root.setLevel(logging.WARNING if level == logging.INFO else level)
    logging.getLogger("fedjoint").setLevel(min(level, logging.INFO))


class TextLines(logging.Formatter):
    """Formats a record as a line for people: time in UTC, level, logger, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a message of several is one, a traceback is below it."""
        if "\n" in (text := record.getMessage()):
            line = " ".join(text.split())
            record = logging.makeLogRecord({**vars(record), "msg": line, "args": None})
        return super().format(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _when(record)


class JsonLines(logging.Formatter):
    """Formats a record as ``{"time", "level", "logger", "message"}``, time in UTC.

    What is logged with :func:`event` has ``event`` and its details beside these.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": _when(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "details", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _when(record: logging.LogRecord) -> str:
    when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return when.isoformat(timespec="milliseconds")


def event(logger: logging.Logger, level: int, kind: str, text: str, **details: Any) -> None:
    """Log that something of a ``kind`` happened: ``text`` for people, ``details`` for programs."""
    logger.log(level, "%s", text, extra={"details": {"event": kind, **details}})


def add_line(path: Path, level: int, name: str, text: str) -> None:
    """Append one line to the log of a process that has ended.

    Args:
        path: the log.
        level: of the line.
        name: of its logger.
        text: the message.

    Raises:
        OSError: it cannot be written.
    """
    record = logging.LogRecord(name, level, "", 0, text, None, None)
    with path.open("a", encoding="utf-8") as file:
        file.write(JsonLines().format(record) + "\n")


def log_to(path: Path, *, rotate: bool = False, watch: bool = False) -> None:
    """Append what fedjoint logs to ``path`` as well; the console's messages stay as they are.

    Args:
        path: the file, which its owner alone may read.
        rotate: begin another file when this one is large, and keep a few older ones.
        watch: go on in the new file after another process has done that.

    Raises:
        UserError: ``path`` cannot be written.
    """
    logger = logging.getLogger("fedjoint")
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    known = [h.baseFilename for h in logger.handlers if isinstance(h, logging.FileHandler)]
    if str(path.resolve()) in known:
        return
    handler: logging.FileHandler
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if rotate:
            handler = RotatingFileHandler(
                path.resolve(), maxBytes=_MOST, backupCount=_KEPT, encoding="utf-8"
            )
        else:
            kind = WatchedFileHandler if watch else logging.FileHandler
            handler = kind(path.resolve(), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; make its folder writable for the user of this program"
        ) from None
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
