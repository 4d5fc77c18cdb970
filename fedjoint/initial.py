"""Whether what a run has learnt is a beginning for others: trained, on what they read, too."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fedjoint.config.schema import Config
from fedjoint.data.reads import Reads, check_same_inputs, reads_of_card
from fedjoint.errors import UserError
from fedjoint.model.inputs import Description
from fedjoint.model.joint import JointModel
from fedjoint.problem import Problem
from fedjoint.runs.directory import RunDir
from fedjoint.runs.files import read_bytes
from fedjoint.runs.initial import read_initial
from fedjoint.runs.seal import parse
from fedjoint.runs.tensors import DamagedError
from fedjoint.server.strategy import local_method, make_strategy
from fedjoint.training.method import make_method

log = logging.getLogger(__name__)

_CARD = "model.json"  # of an export, beside its weights
_SAID = 4  # tensors in a message


def check_initial(config: Config, problem: Problem, model: JointModel) -> None:
    """Make sure that ``model.initial`` is a beginning for a model.

    A file of weights says nothing but its tensors: that it fits is then the user's word.

    Args:
        config: of the run that is to begin.
        problem: its problem.
        model: its model.

    Raises:
        UserError: it was trained on other inputs, or not at all.
    """
    path = Path(config.model.initial or "")
    if not config.model.initial or not path.is_dir():
        return
    whose = f"model.initial: {path}"
    run = RunDir.open(path) if (path / "run.json").is_file() else None
    known = reads_in_run(run) if run else _reads_in_card(path / _CARD, problem.reads)
    weights = "final/backbone.safetensors" if run else "model.safetensors"
    if known:
        try:
            check_same_inputs(known, problem.reads, whose)
        except UserError as error:
            said = f"{error}; or, to take the weights for these all the same, give its {weights}"
            raise UserError(said) from None
    if run is None:
        return
    theirs, tensors = run.config(), read_initial(path)
    check_shared(theirs, whose)
    if lacking := trained_apart(model, tensors):
        log.warning(
            "%s: %s of its backbone are its clients' own, and not in the run, so they begin fresh; "
            "a client's model has them (fedjoint export --client, and its folder)",
            whose,
            listed(lacking),
        )
    if not theirs.model.initial:
        began = theirs.model_copy(
            update={"model": config.model.model_copy(update={"initial": None})}
        )
        check_moved(tensors, problem.model(began).state_dict(), whose)


def reads_in_run(run: RunDir) -> Reads | None:
    """Return what a run's backbone reads; None: it does not say."""
    return None if run.inputs is None else Reads.model_validate(run.inputs)


def _reads_in_card(path: Path, here: Reads) -> Reads | None:
    """Return what an export reads; None: there is no card, as in a folder of another library."""
    if not path.is_file():
        return None
    try:
        card = parse(read_bytes(path))
        inputs = TypeAdapter[Description](Description).validate_python(card["inputs"])
        known = reads_of_card(inputs, here, source=card["backbone"] is not None)
    except (DamagedError, ValidationError, KeyError) as error:
        why = error if isinstance(error, DamagedError) else "it does not say what is read"
        raise UserError(f"model.initial: {path}: not a card: {why}; export again") from None
    return known.within(path.parent)


def check_shared(config: Config, whose: str) -> None:
    """Make sure that the clients of a run trained a backbone in common.

    Args:
        config: of the run.
        whose: it is, to begin the message.

    Raises:
        UserError: each has one of its own.
    """
    try:
        name, options = local_method(make_strategy(config), config)
        shares = make_method(name, options).shares
    except UserError:  # a plug-in's file is gone: what it left is looked at all the same
        return
    if not shares:
        cure = "set its option merge = true" if "merge" in options else "leave local.method out"
        raise UserError(
            f"{whose}: its clients have backbones of their own (local method {name}), and the one "
            f"in common is as it was built: take a run that trains one ({cure}), or a client's "
            "model (fedjoint export --client, and its folder as model.initial)"
        )


def trained_apart(model: JointModel, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of what trains of a backbone, is each client's own, and is not there.

    Args:
        model: of the backbone.
        tensors: name -> tensor, what is there.
    """
    own = {name for name, tensor in model.kept().items() if tensor.is_floating_point()}
    return sorted(own - tensors.keys())


def check_moved(tensors: Mapping[str, Tensor], first: Mapping[str, Tensor], whose: str) -> None:
    """Make sure that a backbone is another than that with which its run began.

    Args:
        tensors: name -> tensor, of the backbone.
        first: the same, before the first round.
        whose: it is, to begin the message.

    Raises:
        UserError: all that both have is the same.
    """
    known = tensors.keys() & first.keys()
    if known and all(torch.equal(tensors[n], first[n].to(tensors[n].dtype)) for n in known):
        raise UserError(
            f"{whose}: its backbone is as it was built: no round has changed it; train it first"
        )


def listed(names: Iterable[str]) -> str:
    """Return the names of tensors, the first few."""
    own = [name.removeprefix("backbone.") for name in names]
    return ", ".join(own[:_SAID]) + (f" and {len(own) - _SAID} more" if len(own) > _SAID else "")
