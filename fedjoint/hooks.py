"""Methods that a plug-in overrides, checked before they are called."""

from __future__ import annotations

import inspect

from fedjoint.errors import UserError


def check_hooks(what: str, plugin: object, base: type) -> None:
    """Make sure that ``plugin`` can be called as its base class can.

    Args:
        what: the plug-in, for errors.
        plugin: an object of a subclass.
        base: its base class.

    Raises:
        UserError: what it has in place of a method is none, or takes other arguments.
    """
    for name, method in vars(base).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        own = getattr(plugin, name)
        if getattr(own, "__func__", None) is method:
            continue
        if not callable(own):
            raise UserError(f"{what}: {name} is {type(own).__name__}: make it a method")
        takes = list(inspect.signature(method).parameters)[1:]
        try:
            signature = inspect.signature(own)
        except ValueError:  # written in C
            continue
        try:
            signature.bind(*takes)
        except TypeError:
            wanted = ", ".join(["self", *takes])
            raise UserError(
                f"{what}: {name} takes {signature}, and it is called with ({', '.join(takes)}): "
                f"write def {name}({wanted})"
            ) from None
