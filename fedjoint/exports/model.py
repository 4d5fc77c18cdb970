"""A single task's model on its own: backbone and head, and the card that describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from fedjoint.config.schema import ModelConfig
from fedjoint.config.section import Section
from fedjoint.data.sources.synthetic import FixedHead
from fedjoint.errors import UserError, choose
from fedjoint.exports.ensemble import EnsembleModel
from fedjoint.exports.inputs import zeros
from fedjoint.model.inputs import Description, Inputs, tokenizer_of
from fedjoint.model.joint import build_model
from fedjoint.model.tasks import Task
from fedjoint.model.tree import Input, each
from fedjoint.problem import Backbone, Problem
from fedjoint.runs.seal import parse
from fedjoint.runs.tensors import DamagedError, unpack

#: The files of an export: format -> name. The card is always there.
FILES = {"safetensors": "model.safetensors", "export": "model.pt2", "onnx": "model.onnx"}
CARD = "model.json"

#: The folder beside them, of what a pretrained backbone and a tokenizer are built of.
PRETRAINED = "pretrained"


class TaskModel(nn.Module):
    """Maps a source's own numbers ``[n, ...]`` (or ids, or a dict) to outputs ``[n, ...]``.

    The outputs are logits, or a regression's values; see :class:`fedjoint.Task` for their shapes.

    Args:
        backbone: inputs to features.
        head: features to outputs.
        scaling: mean and scale of the inputs, ``(x - mean) / scale``; None: as they are.
        units: mean and scale of the targets, ``[outputs]``: the head's output times the scale plus
            the mean is what is predicted; None: the head predicts the targets as they are.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        scaling: tuple[Tensor, Tensor] | None = None,
        units: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.mean: Tensor | None
        self.scale: Tensor | None
        self.register_buffer("mean", scaling[0] if scaling else None)
        self.register_buffer("scale", scaling[1] if scaling else None)
        self.target_mean: Tensor | None
        self.target_scale: Tensor | None
        self.register_buffer("target_mean", units[0] if units else None)
        self.register_buffer("target_scale", units[1] if units else None)

    def forward(self, x: Input) -> Tensor:
        if isinstance(x, Tensor) and self.mean is not None and self.scale is not None:
            x = (x - self.mean) / self.scale
        return self.of_scaled(x)

    def of_scaled(self, x: Input) -> Tensor:
        """Return the outputs of inputs that are scaled already, as clients have them."""
        output = self.head(self.backbone(x))
        if self.target_mean is not None and self.target_scale is not None:
            form = -1, *[1] * (output.ndim - 2)
            output = output * self.target_scale.view(form) + self.target_mean.view(form)
        return output


class Target(Section):
    """What is predicted.

    Attributes:
        name: of the task.
        kind: of the task.
        outputs: classes, labels, targets or whatever the kind has.
        size: of the task.
        classes: names of the classes, by number, where they have any.
    """

    name: str
    kind: str
    outputs: int
    size: list[int] = Field(default_factory=list)
    classes: list[str] | None = None


class Origin(Section):
    """Where a model comes from.

    Attributes:
        fedjoint: version that wrote it.
        run: name of the run.
        run_id: its id.
        seed: of the run.
        round: rounds done.
        strategy: that merged the backbone.
        method: that trained it locally.
        clients: ids of the clients whose private parts are in it.
        group: whose backbone it is, where clients are in groups; else empty.
        how: what was made of them, in words.
        scaling: what scales the inputs, in words; None: nothing.
    """

    fedjoint: str
    run: str
    run_id: str
    seed: int
    round: int
    strategy: str
    method: str
    clients: list[int]
    group: str = ""
    how: str
    scaling: str | None


class Card(Section):
    """What ``model.json`` holds.

    Attributes:
        schema_version: of this description.
        inputs: what the model reads.
        backbone: the backbone's settings; None: it is code of the run's own.
        head: ``linear``, ``fixed`` (``FixedHead`` of the synthetic data) or ``own`` code.
        target: what it predicts.
        members: models of an ensemble, alike but for their numbers; 0: it is a single model.
        origin: where it comes from.
        files: name -> SHA-256 of each file that the card describes.
    """

    schema_version: Literal[3] = 3
    inputs: Description
    backbone: ModelConfig | None
    head: Literal["linear", "fixed", "own"]
    target: Target
    members: int = Field(0, ge=0, le=100_000)
    origin: Origin
    files: Mapping[str, str] = Field(default_factory=dict)

    @property
    def rebuilt(self) -> bool:
        """Whether fedjoint can rebuild the model from its card and tensors."""
        if self.backbone is None or self.head == "own":
            return False
        return ":" not in self.backbone.backbone.name

    @property
    def options(self) -> dict[str, Any]:
        """The backbone's options; none where it is code of the run's own."""
        return self.backbone.backbone.options if self.backbone else {}

    def with_paths(self, tokenizer: str | None, options: dict[str, Any]) -> Card:
        """Return the card with another path of its tokenizer, and other options of its backbone."""

        def moved(part: Inputs) -> Inputs:
            words = part.words and part.words.model_copy(update={"tokenizer": tokenizer})
            return part.model_copy(update={"words": words})

        update: dict[str, Any] = {"inputs": each(moved, self.inputs)}
        if self.backbone:
            plugin = self.backbone.backbone.model_copy(update={"options": options})
            update["backbone"] = self.backbone.model_copy(update={"backbone": plugin})
        return self.model_copy(update=update)

    def within(self, folder: Path) -> Card:
        """Return the card with the files that lie beside it in ``folder`` by their paths."""
        options, own = self.options, str(folder / PRETRAINED)
        if options.get("path") == PRETRAINED:
            options = {**options, "path": own}
        tokenizer = tokenizer_of(self.inputs)
        return self.with_paths(own if tokenizer == PRETRAINED else tokenizer, options)


def read_card(folder: Path) -> Card:
    """Return the card of an export.

    Raises:
        UserError: there is none, or it is damaged or of another version.
    """
    path = folder / CARD
    try:
        return Card.model_validate(parse(path.read_bytes())).within(folder)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; give a folder that fedjoint export wrote"
        ) from None
    except DamagedError as error:
        raise UserError(f"{path}: not a card: {error}; export again") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {place or 'not a card'}: {first['msg']}; export again") from None


def read_model(folder: Path, card: Card, name: str) -> bytes:
    """Return the content of the model's file ``name``.

    Raises:
        UserError: it cannot be read, or is not the one that the card describes.
    """
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        again = [f" with --format {kind}" for kind, file in FILES.items() if file == name]
        how = again[0] if again else " again"
        raise UserError(f"{path}: {error.strerror}; export{how}") from None
    if hashlib.sha256(data).hexdigest() != card.files.get(name):
        raise UserError(f"{path}: not the model that {CARD} describes; export again")
    return data


def load(folder: Path, card: Card, problem: Problem | None = None) -> nn.Module:
    """Rebuild a model from its card and ``model.safetensors``, ready to predict.

    No code that the files name is run.

    Args:
        folder: of the export.
        card: of the export.
        problem: the run's own, which has the backbone and the head where they are code.

    Raises:
        UserError: the backbone or the head is code of the run's own and no problem is given, the
            problem is another, or a file is damaged.
    """
    path, target = folder / FILES["safetensors"], card.target
    backbone, task, example = _parts(path, card, problem)
    try:
        tensors, _ = unpack(read_model(folder, card, path.name))
        for name in card.files:
            if name.startswith(f"{PRETRAINED}/"):
                read_model(folder, card, name)
    except DamagedError as error:
        raise UserError(f"{path}: {error}; export again") from None

    def member(prefix: str) -> TaskModel:
        joint = build_model(backbone, [task], example, seed=0)
        pairs = (_pair(tensors, *(prefix + name for name in names)) for names in (_SCALING, _UNITS))
        return TaskModel(joint.backbone, joint.heads[target.name], *pairs)

    model: nn.Module = member("")
    if card.members:
        members = [member(f"members.{number}.") for number in range(card.members)]
        model = EnsembleModel(members, torch.zeros(card.members), target.kind)
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        what = f"{CARD}; export again" if problem is None else "the problem that is given"
        raise UserError(f"{path}: its tensors do not fit {what}") from None
    return model.eval()


def _parts(
    path: Path, card: Card, problem: Problem | None
) -> tuple[Callable[[], nn.Module], Task, Input]:
    """Return what builds the backbone, the task, and ``[1, ...]`` an input."""
    target = card.target
    if problem is not None:
        own = problem.of(card.origin.group)
        tasks = {task.name: task for task in own.tasks}
        if target.name not in tasks:
            raise choose("task of the problem", target.name, tasks)
        return own.backbone, tasks[target.name], own.example
    if not card.rebuilt or card.backbone is None:
        named = "" if card.backbone else "say where by --problem, as in the run's settings, or "
        raise UserError(
            f"{path}: its backbone or head is code of your own: {named}export with --format onnx"
        )
    head = FixedHead if card.head == "fixed" else None
    task = Task(target.name, target.kind, target.outputs, head=head, size=tuple(target.size))
    return Backbone(card.backbone.backbone, card.inputs), task, each(zeros, card.inputs)


_SCALING, _UNITS = ("mean", "scale"), ("target_mean", "target_scale")


def _pair(tensors: dict[str, Tensor], mean: str, scale: str) -> tuple[Tensor, Tensor] | None:
    return (tensors[mean], tensors[scale]) if {mean, scale} <= tensors.keys() else None
