"""Small models and tasks of every kind that users bring.

A case is a public function of a module here, ``(config) -> Problem``; ``test_zoo.py`` puts each
through the engines, resumption, export and both ways of training. A module that needs a package
which may be missing begins with ``pytest.importorskip``.
"""

import importlib
import inspect
import pkgutil

import pytest


def cases():
    """Return every case, a ``pytest.param`` of the reference ``module:function``."""
    found = []
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        try:
            module = importlib.import_module(f"{__name__}.{name}")
        except pytest.skip.Exception as why:
            found.append(pytest.param("", id=name, marks=pytest.mark.skip(reason=str(why))))
            continue
        for kind, make in inspect.getmembers(module, inspect.isfunction):
            if make.__module__ == module.__name__ and not kind.startswith("_"):
                found.append(pytest.param(f"{module.__name__}:{kind}", id=kind))
    return found
