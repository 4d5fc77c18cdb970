"""Certificates that are about to end, said thirty days before and every day from then on."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cryptography import x509

from fedjoint._util.often import Often

log = logging.getLogger("fedjoint.deploy")

_SOON = datetime.timedelta(days=30)
_DAY = 86_400.0  # seconds


def ending(path: Path, now: datetime.datetime) -> str | None:
    """Return what is to be said of a certificate; None where it lasts for thirty days and more.

    Args:
        path: the certificate.
        now: with a time zone.
    """
    end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    if end - now > _SOON:
        return None
    cure = (
        "make new keys for all, in a new folder, with fedjoint keys"
        if path.name == "ca.pem"
        else "make another with fedjoint keys KEYS --host NAME, and restart the server"
    )
    verb = "ends" if end > now else "has ended"
    return f"{path}: this certificate {verb} on {end:%d %B %Y}; {cure}"


def calendar(paths: Sequence[Path]) -> Often:
    """Return what looks at certificates every day, as long as it is entered."""
    return Often(partial(_warn, paths), _DAY, "calendar")


def _warn(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            text = ending(path, datetime.datetime.now(datetime.UTC))
        except (OSError, ValueError) as error:
            text = f"{path}: cannot be read just now: {error}"
        if text:
            log.warning("%s", text)
