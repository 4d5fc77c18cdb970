"""A folder that nobody but its owner may read."""

from __future__ import annotations

from pathlib import Path

from fedjoint.errors import UserError


def keep_to_owner(folder: Path) -> None:
    """Make a folder, and let its owner alone into it.

    Raises:
        UserError: it cannot be made, or belongs to another user.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; use a folder of your own") from None
