"""The public API: every name is there, and says what it is for."""

import inspect

import pytest

import fedjoint


@pytest.mark.parametrize("name", fedjoint.__all__)
def test_a_public_name_and_its_methods_are_documented(name):
    thing = getattr(fedjoint, name)
    methods = inspect.getmembers(thing, inspect.isfunction) if inspect.isclass(thing) else []
    ours = [m for m in methods if m[0][0] != "_" and m[1].__module__.startswith("fedjoint.")]
    bare = [place for place, value in [(name, thing), *ours] if not inspect.getdoc(value)]
    assert not bare


def test_every_public_name_is_imported_when_it_is_used():
    assert sorted(fedjoint.__all__) == fedjoint.__all__ == sorted(fedjoint._MODULES)
