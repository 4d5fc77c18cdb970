"""Optional libraries, imported where they are needed, without their chatter."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedjoint.errors import ANYTHING, UserError, said


def library(name: str, extra: str) -> Any:
    """Import a library that fedjoint does not need otherwise.

    Args:
        name: of its package.
        extra: of fedjoint, which installs it.

    Raises:
        UserError: it is not installed, or cannot be imported.
    """
    try:
        with quiet():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise UserError(f"{name} cannot be imported: {said(error)}") from None
        raise UserError(f"needs {name}: pip install 'fedjoint[{extra}]'") from None
    except ANYTHING as error:  # such as one that was built for another PyTorch
        raise UserError(f"{name} cannot be imported: {said(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, log lines and progress bars of such libraries off the screen.

    What of it concerns the user is said by fedjoint, in a line of its own.
    """
    loggers = [logging.getLogger(name) for name in ("transformers", "peft", "timm")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), _no_bars():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _no_bars() -> Iterator[None]:
    try:
        from transformers.utils import logging as bars
    except ImportError:  # the library is another one
        yield
        return
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
