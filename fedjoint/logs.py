"""Structured logs: one JSON object per line."""

from __future__ import annotations

import datetime
import json
import logging
from pathlib import Path


class JsonLines(logging.Formatter):
    """Formats a record as ``{"time", "level", "logger", "message"}``, time in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to(path: Path) -> None:
    """Append what fedjoint logs to ``path`` as well; the console's messages stay as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("fedjoint")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
