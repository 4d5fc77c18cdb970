"""A problem: what the clients learn, on which backbone, from which data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fedjoint.config.data import DataConfig
from fedjoint.config.schema import BackboneConfig, Config
from fedjoint.config.section import Plugin
from fedjoint.config.sizes import check_sizes
from fedjoint.data.base import Examples, Federation
from fedjoint.data.build import make_source
from fedjoint.data.datasets import divided, of_clients
from fedjoint.data.items import Reading
from fedjoint.data.loading import check_examples
from fedjoint.data.of_group import OfGroup
from fedjoint.data.public import WithoutPublic
from fedjoint.data.reads import Reads, reads_of, reads_of_example
from fedjoint.data.source import Built, Source
from fedjoint.data.unseen import seen, unseen
from fedjoint.errors import ANYTHING, UserError, choose, said
from fedjoint.model.each_item import EachItem
from fedjoint.model.groups import Group, membership, naming
from fedjoint.model.ids import Known
from fedjoint.model.inputs import Description, Inputs
from fedjoint.model.joint import JointModel, build_model
from fedjoint.model.likeness import Likeness
from fedjoint.model.loss import make_loss
from fedjoint.model.metric import make_metric
from fedjoint.model.parts import Parts
from fedjoint.model.ragged import checked_pad
from fedjoint.model.stream import Stream
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, check_tree, count
from fedjoint.options import check_maker, construct
from fedjoint.registry import find, load_object
from fedjoint.runs.initial import fit_unshared

#: a source, the ``data`` table, the seed, and the clients' ids -> what :meth:`Source.build` returns
Build = Callable[[Source, DataConfig, int, Sequence[int] | None], Built]


@dataclass(frozen=True)
class Problem:
    """Everything that a run needs to know beside its configuration.

    Attributes:
        tasks: the tasks, in the order of ``data.task_names``.
        backbone: builds a fresh backbone, inputs ``[n, ...]`` (a tensor, or a dict of them) to
            features ``[n, features]``, or whatever the tasks' heads take.
        data: the clients and their examples.
        example: ``[1, ...]`` one input, to find the shapes of the model: a tensor, or a dict of
            named tensors, which the backbone gets as its one argument.
        central: examples with labels of all tasks, on which every client's model is measured
            beside its own: the split ``central`` of an evaluation. None: there are none.
        public: ``[n, ...]`` inputs without labels that all clients have, for strategies that
            compare what clients make of them (FedMD). None: there are none.
        groups: name -> clients with an architecture, and perhaps inputs, of their own, see
            :meth:`of_groups`; empty where all clients have ``backbone`` and ``example``.
        pad: what fills up inputs that are shorter than the example along their first dimension: a
            number, or, for those tensors of a dict that are of unequal length, a dict of them. The
            model has to leave it out, by a mask or by its value. None: all have one length.

    Raises:
        UserError: tasks and data do not name the same tasks, the data's arrays do not fit one
            another, nobody has any data, or a client is in no group or in two.
    """

    tasks: Sequence[Task]
    backbone: Callable[[], nn.Module]
    data: Federation
    example: Input
    central: Examples | None = None
    groups: Mapping[str, Group] = field(default_factory=dict)
    public: Input | None = None
    pad: float | Mapping[str, float] | None = None
    #: what a data source says that the backbone reads; None: no source says so
    _reads: Reads | None = field(default=None, repr=False, compare=False)
    #: whether clients have been kept out of training
    _kept_out: bool = field(default=False, repr=False, compare=False)

    @classmethod
    def of_groups(
        cls,
        tasks: Sequence[Task],
        data: Federation,
        groups: Mapping[str, Group],
        central: Examples | None = None,
        public: Input | None = None,
    ) -> Problem:
        """Return a problem whose clients have different architectures, or different inputs.

        Args:
            tasks: see :class:`Problem`.
            data: see :class:`Problem`.
            groups: name -> group; every client is in one. Within a group all shared tensors are
                merged, across groups those of ``model.common``.
            central: see :class:`Problem`.
            public: see :class:`Problem`.

        Raises:
            UserError: see :class:`Problem`.
        """
        if not isinstance(groups, Mapping) or not groups:
            raise UserError("give one or more groups, a dict: name -> fedjoint.Group")
        some = next(iter(groups.values()))
        if not isinstance(some, Group):
            raise UserError(f"a group is a {type(some).__name__}: give a fedjoint.Group")
        return cls(tasks, some.backbone, data, some.example, central, groups, public)

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.central is not None:
            check_examples(self.central, "central")
        if self.central is not None and not len(self.central):
            raise UserError("central has no examples; leave it out")
        if self.public is not None:
            check_tree(self.public, "the public inputs")
            if not count(self.public):
                raise UserError("public has no examples; leave it out")
        names = tuple(task.name for task in self.tasks)
        if names != tuple(self.data.task_names):
            raise UserError(f"the tasks are {names}, the data's are {self.data.task_names}")
        if len(set(names)) < len(names):
            raise UserError(f"two tasks have one name: {', '.join(names)}")
        self._check_arrays(len(names))
        for name in self.group_names if self.groups else ():
            self.of(name)

    @property
    def group_names(self) -> tuple[str, ...]:
        """The groups, in the order of their names; of one architecture for all, an empty name."""
        return tuple(sorted(self.groups, key=str)) or ("",)

    @cached_property
    def member(self) -> np.ndarray:
        """``[clients]`` int64, the place of each client's group in :attr:`group_names`.

        A client without tasks may be in no group: -1.
        """
        if not self.groups:
            return np.zeros(len(self.data.sizes), np.int64)
        return membership(self.groups, np.any(self.data.tasks, axis=1))

    @property
    def reads(self) -> Reads:
        """What the backbone reads, to compare it with what another was trained on."""
        return self._reads or reads_of_example(self.example, checked_pad(self.pad, self.example))

    def of(self, group: str) -> Problem:
        """Return the problem of one group; in its data the others have no examples.

        Raises:
            UserError: nobody in the group has a training example, or its backbone or example is of
                no kind that a problem is made of.
        """
        if not self.groups:
            return self
        member = self.member == self.group_names.index(group)
        own = self.groups[group]
        with naming(group):
            return replace(
                self,
                backbone=own.backbone,
                example=own.example,
                data=OfGroup(self.data, member),
                groups={},
            )

    @classmethod
    def from_datasets(  # noqa: PLR0913 - all by name, and rarely more than two
        cls,
        tasks: Sequence[Task],
        backbone: Callable[[], nn.Module],
        datasets: Any,
        *,
        inputs: str | Sequence[str] | None = None,
        targets: Mapping[str, str] | None = None,
        owner: str = "",
        pad: float | Mapping[str, float] | None = None,
        stream: bool = False,
        config: Config | None = None,
    ) -> Problem:
        """Return the problem of clients with datasets of PyTorch or Hugging Face.

        Items are pairs ``(input, label)`` or ``(input, {task: label})``, or dicts of columns. A
        missing label is None, -1 (classes) or NaN.

        Args:
            tasks: the tasks.
            backbone: builds a fresh backbone.
            datasets: name of each client -> its dataset; or one dataset, which ``config.data``
                divides among clients. In place of a dataset, which is split by the fractions in
                ``config.data``, a tuple of a training, a validation and a test set, or None.
            inputs: of columns: the one that is the input, or several, which are a dict.
            targets: of columns: task -> its labels; by default, columns are named as the tasks.
            owner: of columns: whose an item is, for ``data.partition = "natural"``.
            pad: as the problem's; the example is as long as the longest input.
            stream: read inputs when they are needed, and keep labels alone in memory.
            config: has the seed and the ``data`` table; by default that of an empty configuration.

        Raises:
            UserError: what is given is no dataset, or an item is not like the others.
        """
        config = config or Config()
        fills = pad if isinstance(pad, Mapping) else {} if pad is None else {"": pad}
        reading = Reading(tasks, inputs, targets or {}, fills, stream)
        if isinstance(datasets, Mapping):
            built = of_clients(datasets, reading, config.data, config.seed)
        else:
            built = divided(datasets, reading, config.data, config.seed, owner)
        return cls(built[0], backbone, *built[1:], pad=pad)

    def _check_kinds(self) -> None:
        """Refuse parts that are of no kind that a problem is made of."""
        check_tree(self.example, "the inputs of the example")
        if (rows := count(self.example)) != 1:
            raise UserError(f"the example has {rows} rows: give one input, [1, ...]")
        checked_pad(self.pad, self.example)
        if isinstance(self.backbone, nn.Module) or not callable(self.backbone):
            what = type(self.backbone).__name__
            raise UserError(
                f"the backbone is a {what}: give a function that builds one, such as lambda: module"
            )
        if isinstance(self.tasks, str) or not isinstance(self.tasks, Sequence):
            raise UserError(f"the tasks are a {type(self.tasks).__name__}: give a list of Task")
        for task in self.tasks:
            if not isinstance(task, Task):
                raise UserError(f"a task is of type {type(task).__name__}: give a fedjoint.Task")
        for part in ("task_names", "sizes", "tasks"):
            if not hasattr(self.data, part):
                what = type(self.data).__name__
                raise UserError(
                    f"the data are a {what} without {part!r}: give an object with task_names, "
                    "sizes, tasks and client(index)"
                )

    def fitted(self, x: Input | Stream, who: str, ids: Known | None = None) -> Input | Stream:
        """Return inputs as the model takes them: of the example's kind, names and length.

        Args:
            x: ``[n, ...]``.
            who: whose they are, for the message.
            ids: which ids the model knows; None: that is not known.

        Raises:
            UserError: they are not what the model takes, or not finite.
        """
        likeness = Likeness(self.example, checked_pad(self.pad, self.example), ids or {})
        return x.like(likeness, who) if isinstance(x, Stream) else likeness.fitted(x, who)

    def _check_arrays(self, tasks: int) -> None:
        """Refuse arrays of the data that do not fit one another, and data of nobody."""
        clients = np.size(self.data.sizes)
        for name, shape in (("sizes", (clients,)), ("tasks", (clients, tasks))):
            array = getattr(self.data, name)
            if not isinstance(array, np.ndarray) or array.shape != shape:
                has = getattr(array, "shape", type(array).__name__)
                raise UserError(f"data.{name} is {has}, not a NumPy array of shape {shape}")
        if self.data.tasks.dtype != bool:
            raise UserError(
                f"data.tasks is of {self.data.tasks.dtype}: whether each client has each task is "
                "bool; call .astype(bool)"
            )
        if (self.data.sizes < 0).any():
            raise UserError("a client has a negative number of examples")
        if not len(self.data.sizes) or not (self.data.sizes > 0).any():
            raise UserError("no client has a training example")
        idle = np.flatnonzero((self.data.sizes > 0) & ~self.data.tasks.any(axis=1))
        if len(idle):
            raise UserError(
                f"client {idle[0]} has training examples and no task: give it one in data.tasks, "
                "or no examples in data.sizes"
            )

    def models(self, config: Config) -> dict[str, JointModel]:
        """Build the joint model of every group, by name.

        Raises:
            UserError: one cannot be built, or ``model.common`` does not fit them.
        """
        self.check_groups(config)
        if not self.groups:
            return {"": self.model(config)}
        models = {}
        for name in self.group_names:
            with naming(name):
                models[name] = self.of(name).model(config)
        Parts({name: model.layout() for name, model in models.items()}, config.model.common)
        return models

    @property
    def _held(self) -> list[Task]:
        """The tasks that get a head; those of other groups may take features of another shape."""
        data = self.data
        held = data.held if isinstance(data, OfGroup) else [True] * len(self.tasks)
        return [task for task, has in zip(self.tasks, held, strict=True) if has]

    def check_groups(self, config: Config) -> None:
        """Refuse settings that do not go with the groups that there are, or are not.

        Raises:
            UserError: the line says which.
        """
        if config.model.common and not self.groups:
            raise UserError(
                "model.common names what groups of clients share, and there are no groups: leave "
                "it out, or set model.groups"
            )
        if config.model.initial and self.groups:
            raise UserError(
                "model.initial is of one architecture, and clients are in groups: have each "
                "group's backbone load its weights as it is built"
            )

    def model(self, config: Config) -> JointModel:
        """Build the model of one architecture, with the same initial weights on every machine.

        What never travels of the backbone begins as ``model.initial`` has it, on every machine.

        Raises:
            UserError: it cannot be built, or ``model.initial`` is not of this model.
        """
        setting = config.model
        shared = setting.heads == "shared"
        model = build_model(
            self.backbone,
            self.tasks if shared else self._held,
            self.example,
            norm=setting.norm,
            share=setting.share,
            share_heads=shared,
            seed=config.seed,
        )
        if setting.initial and (stays := model.frozen() | model.kept()):
            found = fit_unshared(Path(setting.initial), model.frozen(), model.kept())
            for name, tensor in found.items():
                stays[name].copy_(tensor)
        return model


def build_problem(
    config: Config, ids: Sequence[int] | None = None, build: Build | None = None
) -> Problem:
    """Return the problem that ``config`` describes.

    Args:
        config: the run's configuration.
        ids: the clients' ids, where ``config.data`` is that of a few of the clients.
        build: builds the clients of the data source that ``config`` names; by default, it does so
            itself.

    Raises:
        UserError: the data or the backbone cannot be had, a metric names no task, or a number is
            beyond the memory.
    """
    check_sizes(config)
    if config.problem:
        try:
            problem = load_object(config.problem)(config)
        except UserError:
            raise
        except ANYTHING as error:  # whatever the user names may raise anything
            raise UserError(f"problem = {config.problem!r}: {said(error)}") from error
        if not isinstance(problem, Problem):
            raise UserError(f"problem = {config.problem!r} must return a fedjoint.Problem")
        if config.model.groups:
            raise own_groups()
    else:
        source = make_source(config.data.source)
        made = build or (lambda source, *arguments: source.build(*arguments))
        tasks, data, example = made(source, config.data, config.seed, ids)
        inputs = source.describe(example)
        data, public = make_public(config, data, ids)
        problem = Problem(
            tasks,
            Backbone(config.model.backbone, inputs),
            data,
            example,
            groups=_groups(config, inputs, example, ids),
            public=public,
            _reads=reads_of(source, inputs),
        )
    # A node's own data is a few clients', of which it was asked to keep none out.
    return settled(problem, config, unseen=ids is None)


def settled(problem: Problem, config: Config, *, unseen: bool = True) -> Problem:
    """Return ``problem`` as the settings that hold for every problem have it.

    Args:
        problem: what is described or given.
        config: the settings.
        unseen: whether clients are kept out of training; of a settled problem no more are.

    Raises:
        UserError: there is no such task, metric or scale, an option is wrong, too many clients
            are kept out, or clients are to be tasks and have several.
    """
    if config.data.clients_are_tasks and len(problem.tasks) > 1:
        names = ", ".join(task.name for task in problem.tasks)
        raise UserError(
            f"data.clients_are_tasks: clients have one task under one name, and here are {names}: "
            "leave all but one out, or the setting"
        )
    tasks, data = with_settings(problem.tasks, config), problem.data
    if unseen and not problem._kept_out:
        data = seen(data, config)
    return replace(problem, tasks=tasks, data=data, _kept_out=True)


def make_public(
    config: Config, data: Federation, ids: Sequence[int] | None
) -> tuple[Federation, Input | None]:
    """Return the clients without what ``data.public_share`` takes, and that; None: nothing.

    Raises:
        UserError: a node has data of its own, so that no node has the same public examples.
    """
    share = config.data.public_share
    if not share:
        return data, None
    if ids is not None:
        raise UserError(
            "data.public_share takes examples of all clients, and this node has data of its own: "
            "give all nodes the same examples, by a problem with public=x"
        )
    out = unseen(data, config).tolist() if config.data.unseen_clients else ()
    rest = WithoutPublic(data, share, out)
    return rest, rest.public()


def own_groups() -> UserError:
    """Return the error for ``model.groups`` beside a problem that is written in Python."""
    return UserError(
        "model.groups divides the clients of a data source; a problem of your own has its groups "
        "itself: fedjoint.Problem.of_groups"
    )


def _groups(
    config: Config, inputs: Description, example: Input, ids: Sequence[int] | None
) -> dict[str, Group]:
    """Return the groups of ``model.groups``; those of which a node has no client are left out."""
    groups = {}
    for name, group in config.model.groups.items():
        clients = group.clients
        if ids is not None:
            own = set(clients)
            clients = [place for place, client in enumerate(ids) if client in own]
        if clients or ids is None:
            groups[name] = Group(clients, Backbone(group.backbone, inputs), example)
    return groups


def with_settings(tasks: Sequence[Task], config: Config) -> list[Task]:
    """Return ``tasks`` with the losses, metrics and scales of targets that ``config`` names.

    Raises:
        UserError: there is no such task, loss, metric or scale, it is not for such a task, or an
            option is wrong.
    """
    scales = config.data.target_scale
    _check_names("data.target_scale", scales, tasks)
    _check_names("losses", config.losses, tasks)
    losses = {name: make_loss(loss.name, loss.options) for name, loss in config.losses.items()}
    found = []
    for task in tasks:
        scale, loss = scales.get(task.name, task.scale), losses.get(task.name, task.loss)
        found.append(replace(task, scale=scale, loss=loss))
    return with_metrics(found, config.metrics)


def with_metrics(tasks: Sequence[Task], metrics: Mapping[str, list[Plugin]]) -> list[Task]:
    """Return ``tasks`` with the metrics that are named for some of them.

    Args:
        tasks: the tasks.
        metrics: task -> its metrics.

    Raises:
        UserError: there is no such task or metric, or an option is wrong.
    """
    _check_names("metrics", metrics, tasks)
    chosen = {
        name: [make_metric(each.name, each.options) for each in named]
        for name, named in metrics.items()
    }
    return [replace(task, metric=chosen.get(task.name, task.metric)) for task in tasks]


def _check_names(setting: str, named: Iterable[str], tasks: Sequence[Task]) -> None:
    """Refuse a setting of a task that there is not."""
    names = [task.name for task in tasks]
    for name in named:
        if name not in names:
            raise choose(f"task in {setting}", name, names)


@dataclass(frozen=True)
class Backbone:
    """Builds the backbone that is named; a built-in one reads each of several items."""

    config: BackboneConfig
    inputs: Description

    def __call__(self) -> nn.Module:
        name = self.config.name
        what, make = f"backbone {name}", find("backbones", name)
        check_maker(what, make, nn.Module)
        inputs, items = self.inputs, False
        if isinstance(inputs, Inputs) and inputs.items and ":" not in name:
            inputs = inputs.model_copy(update={"shape": inputs.shape[1:], "items": False})
            items = True
        module = construct(what, make, self.config.options, inputs)
        if not isinstance(module, nn.Module):
            raise UserError(f"backbone {name}: {type(module).__name__} is no torch.nn.Module")
        return EachItem(module) if items else module
