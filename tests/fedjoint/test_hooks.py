"""A plug-in's methods can be called as their base class says, or the plug-in is refused."""

import re

import pytest

import fedjoint
from fedjoint.errors import UserError
from fedjoint.hooks import check_hooks
from fedjoint.server.callbacks import as_callback
from fedjoint.simulation import simulate


class Base:
    def hear(self, what, how):
        """Be overridden."""


class Same(Base):
    def hear(self, sound, way, volume=1):
        pass


class Any(Base):
    def hear(self, *anything):
        pass


class Static(Base):
    @staticmethod
    def hear(what, how):
        pass


class Deaf(Base):
    def hear(self):
        pass


class Greedy(Base):
    def hear(self, what, how, why):
        pass


class Silent(Base):
    hear = "nothing"


@pytest.mark.parametrize("kind", [Base, Same, Any, Static])
def test_what_can_be_called_passes(kind):
    check_hooks("it", kind(), Base)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Deaf, "it: hear takes (), and it is called with (what, how): write def hear(self, what"),
        (Greedy, "it: hear takes (what, how, why)"),
        (Silent, "it: hear is str: make it a method"),
    ],
)
def test_what_cannot_is_named(kind, words):
    with pytest.raises(UserError, match=re.escape(words)):
        check_hooks("it", kind(), Base)


STRATEGY = """
import fedjoint

class NoMerge(fedjoint.JointStrategy):
    pass

class TwoMerge(fedjoint.JointStrategy):
    def merge(self, updates, weights):
        return updates.mean()

class Select(fedjoint.JointStrategy):
    def merge(self, updates):
        return updates.mean()

    def select(self, round):
        return None

class Step(fedjoint.LocalMethod):
    def train(self):
        return {}
"""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": {"name": "own.py:NoMerge"}}, "abstract method"),
        ({"strategy": {"name": "own.py:TwoMerge"}}, "merge takes (updates, weights)"),
        ({"strategy": {"name": "own.py:Select"}}, "select takes (round)"),
        ({"local": {"method": "own.py:Step"}}, "train takes ()"),
    ],
)
def test_a_plug_in_is_refused_before_there_is_a_run(tmp_path, monkeypatch, settings, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(STRATEGY, "utf-8")
    with pytest.raises(UserError, match=re.escape(words)):
        simulate({"rounds": 1, "engine": "inline", **settings})
    assert not (tmp_path / "runs").exists()


class Follower(fedjoint.Callback):
    def after_round(self):
        pass


def test_callbacks_are_checked_too():
    with pytest.raises(UserError, match=re.escape("after_round takes (), and it is called with")):
        as_callback(Follower())
    with pytest.raises(UserError, match="callback Follower is a class: give an object of it"):
        as_callback(Follower)
