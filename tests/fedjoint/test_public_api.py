"""The names of the package itself, which are what an extension needs."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import fedjoint


@pytest.mark.parametrize("name", fedjoint.__all__)
def test_a_public_name_is_the_object_of_its_module(name):
    value = getattr(fedjoint, name)
    assert value.__module__ == fedjoint._MODULES[name]
    assert value is getattr(import_module(value.__module__), name)
    assert inspect.getdoc(value)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(fedjoint.__file__).read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert {name: seen[name] for name in fedjoint.__all__} == fedjoint._MODULES


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = fedjoint.simulat
