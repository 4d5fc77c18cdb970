"""``fedjoint new``."""

from __future__ import annotations

import importlib.util
import keyword
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from fedjoint.cli.common import say
from fedjoint.errors import UserError, choose
from fedjoint.registry import registered
from fedjoint.runs.files import write_files

#: what to write -> its kind in the registry, and how to try it
_KINDS = {
    "strategy": ("strategies", "fedjoint simulate digits --strategy {file}:{cls}"),
    "method": ("methods", "fedjoint simulate digits --set local.method={file}:{cls}"),
    "source": ("sources", "fedjoint simulate digits --set data.source={file}:{cls}"),
    "scenario": ("scenarios", "fedjoint simulate {file}:config"),
}


def new_command(
    kind: Annotated[str, typer.Argument(help="strategy, method, source or scenario.")],
    name: Annotated[str, typer.Argument(help="Its name, such as my_rule.")],
) -> None:
    """Write a minimal strategy, method, source or scenario, and its test, to start from."""
    if kind not in _KINDS:
        raise choose("kind", kind, _KINDS)
    group, usage = _KINDS[kind]
    _check_name(group, name)
    names = {"name": name, "cls": "".join(part.title() for part in name.split("_"))}
    targets = {Path(f"{name}.py"): kind, Path(f"test_{name}.py"): f"test_{kind}"}
    for path in targets:
        if path.exists():
            raise UserError(f"{path} is there already; choose another name, or move it away")
    contents = {}
    for path, template in targets.items():
        text = (files("fedjoint.cli") / "templates" / f"{template}.txt").read_text("utf-8")
        contents[path.name] = Template(text).substitute(names).encode()
    write_files(Path(), contents)
    say(f"wrote {name}.py and test_{name}.py; test it: pytest test_{name}.py")
    say(f"use it: {usage.format(file=f'{name}.py', cls=names['cls'])}")


def _check_name(group: str, name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise UserError(f"{name!r} is no name for a file and a class; write one such as my_rule")
    if name in registered(group):
        raise UserError(f"{name} is registered already among {group}; choose another name")
    if importlib.util.find_spec(name) is not None:
        raise UserError(f"a Python module is named {name} already; choose another name")
