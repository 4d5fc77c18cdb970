"""Numbers at the edges, to every option and setting: refused in one line, or a finite run."""

import math
import re
from typing import get_args

import pytest
import torch
from pydantic import BaseModel

from fedjoint.config.load import check
from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.options import construct, options_of
from fedjoint.registry import KINDS, find, registered
from fedjoint.simulation import simulate

INF, NAN = math.inf, math.nan

#: what no option that is a number takes
NOWHERE = [NAN, INF, -INF, 1e308, -1e308, 1e-308, -1000, -1000.0, "", "1", True, [], 10**400]

#: kind -> where the configuration has such a plug-in
PLACES = {
    "strategies": "strategy",
    "methods": "local",
    "balances": "balance",
    "compressions": "strategy.compression",
    "backbones": "model.backbone",
}

#: valid values of options that have to be given
REQUIRED = {
    "alpha": 0.5,
    "lam": 0.1,
    "mix_epochs": 1,
    "mix_rate": 0.1,
    "mu": 0.1,
    "name": "a",
    "path": "a",
    "targets": {"a": "regression"},
}


def numbers_in(annotation):
    """Return int or float where an annotation is about numbers, however deep; else None."""
    if annotation in (int, float):
        return annotation
    return next(filter(None, map(numbers_in, get_args(annotation))), None)


def numeric_options():
    for kind in KINDS:
        for name in registered(kind):
            if not callable(make := find(kind, name)):
                continue
            for option in options_of(make)[KINDS[kind].given :]:
                if numbers_in(option.annotation):
                    yield kind, name, option


OPTIONS = list(numeric_options())


def names(options):
    return [f"{kind}-{name}-{option.name}" for kind, name, option in options]


def shaped(option, number):
    """Return ``number`` in the form that an option has: alone, in a list, or in a table."""
    if option.allowed.startswith("a list"):
        return [number]
    return {"task0": number} if option.allowed.startswith("a table") else number


def needed(make, *besides):
    return {
        option.name: REQUIRED[option.name]
        for option in options_of(make)
        if option.required and option.name in REQUIRED and option.name not in besides
    }


def test_the_collection_is_there():
    assert len(OPTIONS) > 60 and {kind for kind, *_ in OPTIONS} >= PLACES.keys()


CHECKED = [each for each in OPTIONS if each[1] != "torchjd"]  # an optional package


@pytest.mark.parametrize(("kind", "name", "option"), CHECKED, ids=names(CHECKED))
def test_no_number_beyond_reason_is_an_option(kind, name, option):
    make, given = find(kind, name), [None] * KINDS[kind].given
    for number in NOWHERE:
        options = {**needed(make, option.name), option.name: shaped(option, number)}
        with pytest.raises(UserError, match=f"option {option.name}") as error:
            construct(name, make, options, *given)
        assert "\n" not in str(error.value)


def tree(folder, settings):
    """Return the settings of a small run, with ``table.key`` -> value on top."""
    found = {
        "rounds": 1,
        "data": {
            "clients": 8,
            "examples_per_client": 32,
            "source": {"name": "synthetic", "options": {"learned_heads": True}},
        },
        "model": {"backbone": {"options": {"hidden": [4]}}},
        "local": {"epochs": 2, "batch_size": 32, "optimiser": {"lr": 0.05}},
        "engine": {"name": "inline"},
        "output": {"dir": str(folder)},
    }
    for key, value in settings.items():
        *tables, last = key.split(".")
        inner = found
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[last] = value
    return found


def bounds(option):
    """Return the least and the greatest number that an option allows, and some between."""
    kind = numbers_in(option.annotation)
    yield from map(kind, re.findall(r"[<>]= (\S+)", option.allowed))
    yield from (1,) if kind is int else (1e-30, 0.999999999999)


#: options that take time or memory in proportion: more than a test should
LARGE = {"head_steps", "head_epochs", "tune_epochs", "hidden", "embedding", "clusters"}

#: options that ask for a number of clients that a run of eight has not
MANY = {"malicious", "select"}


#: of images, of texts, of public examples, or of an optional package
ELSEWHERE = {"cnn", "text", "kim", "transformer", "feddf", "fedmd", "torchjd"}


def is_trained_here(kind, name, _option):
    """Whether the run above can have such a plug-in."""
    if kind == "methods":  # halves of a strategy are tried as that
        return not find(kind, name).half_of
    return kind in PLACES and name not in ELSEWHERE


TRAINED = [each for each in OPTIONS if is_trained_here(*each)]


@pytest.mark.parametrize(("kind", "name", "option"), TRAINED, ids=names(TRAINED))
def test_what_is_allowed_leaves_finite_numbers(kind, name, option, tmp_path):
    make, place = find(kind, name), PLACES[kind]
    member = "method" if kind == "methods" else "name"
    for trial, number in enumerate(bounds(option)):
        folder = tmp_path / str(trial)
        if number > 1 and option.name in LARGE | MANY:
            continue
        options = {**needed(make, option.name), option.name: shaped(option, number)}
        settings = {f"{place}.{member}": name, f"{place}.options": options}
        try:
            result = simulate(tree(folder, settings))
        except UserError as error:
            assert option.name in str(error) and "\n" not in str(error)
            assert not any(run.read_text() for run in folder.glob("*/metrics.jsonl"))
            continue
        (record,) = result.records
        # Whose update is that much longer than the others' is left out.
        failed = [f for f in record.clients.failed if "times as long as" not in f.reason]
        assert record.kept is None and not failed, number
        assert all(torch.isfinite(tensor).all() for tensor in result.backbone.values())


#: settings -> words of the refusal, before anything has run
NOTHING_MOVES_OR_EVERYTHING_IS_INFINITE = [
    ({"local.method": "ditto", "local.options": {"lam": INF}}, "option lam = inf: it must be"),
    ({"local.method": "ditto", "local.options": {"lam": -1.0}}, "option lam = -1.0: a number >= 0"),
    ({"local.method": "ditto", "local.options": {"lam": 40.0}}, "lam = 40 is too strong a pull"),
    ({"local.method": "apfl", "local.options": {"alpha": NAN}}, "option alpha = nan: it must be"),
    ({"local.method": "apfl", "local.options": {"alpha": -5.0}}, "option alpha = -5.0: a number"),
    ({"local.method": "prox", "local.options": {"mu": -1000}}, "option mu = -1000: a number >= 0"),
    ({"local.method": "prox", "local.options": {"mu": 1e5}}, "mu = 100000 is too strong a pull"),
    ({"local.method": "prox", "local.options": {"mu": 40.0}}, "keep mu below 40"),
    (
        {"strategy.name": "fedprox", "strategy.options": {"mu": 30.0}, "local.lr_scales": [1, 2]},
        "keep mu below 20",
    ),
    ({"strategy.name": "feddyn", "strategy.options": {"alpha": 50.0}}, "alpha = 50 is too strong"),
    ({"local.method": "rep", "local.options": {"head_steps": ""}}, "option head_steps = ''"),
    ({"strategy.options": {"server_lr": 1e308}}, "option server_lr = 1e+308: it must be 0, or"),
    ({"strategy.options": {"server_lr": 1e30}}, "option server_lr = 1e+30: a number > 0 and <= "),
    ({"strategy.options": {"server_lr": 0.0}}, "option server_lr = 0.0: a number > 0"),
    ({"strategy.name": "fedavgm", "strategy.options": {"momentum": 1}}, "option momentum = 1: a"),
    ({"strategy.name": "fedadam", "strategy.options": {"beta1": 1.0}}, "option beta1 = 1.0: a"),
    ({"strategy.name": "fedyogi", "strategy.options": {"beta2": 1.0}}, "option beta2 = 1.0: a"),
    ({"strategy.name": "fedadam", "strategy.options": {"tau": INF}}, "option tau = inf: it must"),
    (
        {"balance.options": {"weights": {"task0": 0, "task1": 0}}},
        "weights are all 0, and nothing would be trained",
    ),
    ({"balance.options": {"weights": {"task0": INF}}}, "option weights.task0 = inf: it must be"),
    ({"balance.options": {"weights": {"task0": 1e30}}}, "option weights.task0 = 1e+30"),
    ({"balance.name": "dwa", "balance.options": {"temperature": 1e-9}}, "option temperature"),
    ({"balance.name": "gradnorm", "balance.options": {"alpha": 1e6}}, "option alpha = 1000000.0"),
    ({"local.optimiser": {"name": "adam", "epsilon": INF}}, "optimiser.epsilon: "),
    ({"local.optimiser": {"name": "adam", "epsilon": 1e9}}, "optimiser.epsilon: "),
    ({"local.optimiser": {"name": "adam", "beta1": 1.0}}, "optimiser.beta1: "),
    ({"local.optimiser": {"name": "adam", "beta2": 1}}, "optimiser.beta2: "),
    ({"local.optimiser.momentum": 1}, "optimiser.momentum: "),
    ({"local.optimiser.momentum": ""}, "optimiser.momentum: "),
    ({"local.optimiser.lr": 1e308}, "optimiser.lr: "),
    ({"local.optimiser.lr": 1e-300}, "optimiser.lr: "),
    ({"local.optimiser.weight_decay": 40.0}, "throws weights further beyond zero"),
    ({"local.optimiser": {"name": "adamw", "lr": 1, "weight_decay": 2}}, "keep it below 2, or"),
    ({"local.lr_scales": [1, INF]}, "lr_scales"),
    ({"local.lr_scales": [1, NAN]}, "lr_scales"),
    ({"local.lr_scales": [1, -1]}, "lr_scales must be above zero"),
    ({"local.lr_decay": 1e-9}, "lr_decay: "),
    ({"strategy.timeout": 1e308}, "strategy.timeout: "),
    ({"strategy.fraction": NAN}, "strategy.fraction: "),
]


@pytest.mark.parametrize(("settings", "said"), NOTHING_MOVES_OR_EVERYTHING_IS_INFINITE)
def test_settings_under_which_nothing_is_learnt_are_refused(settings, said, tmp_path):
    with pytest.raises(UserError) as error:
        simulate(tree(tmp_path, settings))
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not any(run.read_text() for run in tmp_path.glob("*/metrics.jsonl"))


def fields(model, place=()):
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, (*place, name))
        elif numbers_in(inner):
            yield ".".join((*place, name)), field


FIELDS = dict(fields(Config))


@pytest.mark.parametrize("key", FIELDS)
def test_no_setting_takes_a_number_beyond_reason(key):
    for number in (NAN, INF, -INF, 1e308, -1e308, -1000, "", 10**400):
        form = str(FIELDS[key].annotation)
        value = [number] if "list" in form else {"a": number} if "dict" in form else number
        with pytest.raises(UserError) as error:
            check(tree("runs", {key: value}))
        assert key.split(".")[-1] in str(error.value) and "\n" not in str(error.value)
