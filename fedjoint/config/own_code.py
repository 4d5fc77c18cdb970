"""The user's own code that a configuration names: does a run answer for what is there now?"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fedjoint.config.schema import Config
from fedjoint.errors import ANYTHING


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
        path = _module(*place.split("."))
    else:
        return None
    return path if path.suffix == ".py" and path.is_file() else None


def _module(top: str, *inner: str) -> Path:
    """Return the file of a module, without importing it or its packages; or a path that is none."""
    if top == __name__.partition(".")[0]:  # whose version stands for it
        return Path()
    try:
        spec = importlib.util.find_spec(top)
    except ANYTHING:  # of whatever finds modules here
        return Path()
    if spec is None or not inner:
        return Path(spec.origin or "") if spec else Path()
    places = [Path(folder, *inner) for folder in spec.submodule_search_locations or ()]
    files = [file for at in places for file in (at.with_suffix(".py"), at / "__init__.py")]
    return next((file for file in files if file.is_file()), Path())


# A process imports a file once, and goes on with that whatever becomes of the file.
@cache
def _digest(path: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    waiting, seen = [path], {path}
    while waiting:
        file = waiting.pop()
        content = file.read_bytes()
        found.update(hashlib.blake2b(content).digest())
        new = (
            [] if _installed(file) else [each for each in _near(file, content) if each not in seen]
        )
        waiting += new
        seen.update(new)
    return found.hexdigest()


def _installed(file: Path) -> bool:
    paths = sysconfig.get_paths()
    places = {
        Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    return any(place in file.resolve().parents for place in places)


def _near(file: Path, content: bytes) -> Iterator[Path]:
    """Yield the files that ``file`` may import: of its package, and those beside it or beside that.

    Of a package all count.
    """
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    if folder != file.parent:
        yield from _all(folder / file.relative_to(folder).parts[0])
    for name in _imported(content):
        for place in {file.parent / name, folder / name}:
            if (path := place.with_suffix(".py")).is_file():
                yield path
            elif place.is_dir():
                yield from _all(place)


def _all(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _imported(content: bytes) -> Iterator[str]:
    """Yield the first parts of the names of all modules that code imports."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # as whoever imports it will say
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = [alias.name for alias in node.names]
            yield from [node.module.partition(".")[0]] if node.module else inner
