"""The user's own code that a configuration names: does a run answer for what is there now?"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fedjoint.config.schema import Config


def own_code(config: Config) -> dict[str, str]:
    """Return ``file.py:name`` or ``package.module:name`` -> a digest of the code behind it.

    That is the file, and its neighbours that it imports, directly or not. Wherever a setting or an
    option names such a thing, it counts; what is registered by name does not.
    """
    texts = set(_texts(config.model_dump(mode="json")))
    found = {text: _file_behind(text) for text in sorted(texts)}
    return {text: _digest(path) for text, path in found.items() if path is not None}


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping | list):
        for each in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _texts(each)


def _file_behind(reference: str) -> Path | None:
    place, _, name = reference.rpartition(":")
    if place.endswith(".py"):
        path = Path(place).resolve()
    elif name.isidentifier() and all(part.isidentifier() for part in place.split(".")):
        try:
            spec = importlib.util.find_spec(place)
        except (ImportError, ValueError):
            return None
        path = Path(spec.origin or "") if spec else Path()
    else:
        return None
    return path if path.suffix == ".py" and path.is_file() else None


# A process imports a file once, and goes on with that whatever becomes of the file.
@cache
def _digest(path: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    waiting, seen = [path], {path}
    while waiting:
        content = waiting.pop().read_bytes()
        found.update(hashlib.blake2b(content).digest())
        new = [each for each in _neighbours(path.parent, content) if each not in seen]
        waiting += new
        seen.update(new)
    return found.hexdigest()


def _neighbours(folder: Path, content: bytes) -> Iterator[Path]:
    """Yield the files of ``folder`` that Python code imports, in the order of its imports."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # as whoever imports it will say
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inner = [alias.name for alias in node.names]
            names = [node.module] if node.module else inner
        else:
            continue
        for name in names:
            place = folder / name.partition(".")[0]
            if (path := place.with_suffix(".py")).is_file():
                yield path
            elif (place / "__init__.py").is_file():
                yield from sorted(place.rglob("*.py"))
