"""A problem: what the clients learn, on which backbone, from which data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from fedjoint.config.schema import Config, ModelConfig
from fedjoint.data.base import Federation
from fedjoint.data.build import build_data
from fedjoint.errors import UserError, choose
from fedjoint.model.backbones import TextBackbone, cnn, mlp
from fedjoint.model.joint import JointModel, build_model
from fedjoint.model.tasks import Task
from fedjoint.registry import load_object


@dataclass(frozen=True)
class Problem:
    """Everything that a run needs to know beside its configuration.

    Attributes:
        tasks: the tasks, in the order of ``data.task_names``.
        backbone: builds a fresh backbone, inputs ``[n, ...]`` to features ``[n, features]``.
        data: the clients and their examples.
        example: ``[1, ...]`` one input, to find the shapes of the model.

    Raises:
        UserError: tasks and data do not name the same tasks, the data's arrays do not fit one
            another, or nobody has any data.
    """

    tasks: Sequence[Task]
    backbone: Callable[[], nn.Module]
    data: Federation
    example: Tensor

    def __post_init__(self) -> None:
        names = tuple(task.name for task in self.tasks)
        if names != tuple(self.data.task_names):
            raise UserError(f"the tasks are {names}, the data's are {self.data.task_names}")
        if len(set(names)) < len(names):
            raise UserError(f"two tasks have one name: {', '.join(names)}")
        clients = np.size(self.data.sizes)
        for field, shape in (("sizes", (clients,)), ("tasks", (clients, len(names)))):
            found = getattr(self.data, field)
            if not isinstance(found, np.ndarray) or found.shape != shape:
                has = getattr(found, "shape", type(found).__name__)
                raise UserError(f"data.{field} is {has}, not a NumPy array of shape {shape}")
        if (self.data.sizes < 0).any():
            raise UserError("a client has a negative number of examples")
        if not len(self.data.sizes) or not (self.data.sizes > 0).any():
            raise UserError("no client has a training example")

    def model(self, config: Config) -> JointModel:
        """Build the joint model, with the same initial weights on every machine."""
        return build_model(
            self.backbone, self.tasks, self.example, norm=config.model.norm, seed=config.seed
        )


def build_problem(config: Config, ids: Sequence[int] | None = None) -> Problem:
    """Return the problem that ``config`` describes.

    Args:
        config: the run's configuration.
        ids: the clients' ids, where ``config.data`` is that of a few of the clients.

    Raises:
        UserError: the data or the backbone cannot be had.
    """
    if config.problem:
        problem = load_object(config.problem)(config)
        if not isinstance(problem, Problem):
            raise UserError(f"problem = {config.problem!r} must return a fedjoint.Problem")
        return problem
    tasks, data, example = build_data(config.data, config.seed, ids)
    return Problem(tasks, Backbone(config, tuple(example.shape[1:])), data, example)


@dataclass(frozen=True)
class Backbone:
    """The backbone that ``config.model`` names, for inputs of ``shape``."""

    config: Config
    shape: tuple[int, ...]

    def __call__(self) -> nn.Module:
        model: ModelConfig = self.config.model
        if ":" in model.backbone:
            return load_object(model.backbone)(model)
        if model.backbone == "mlp":
            return mlp(_product(self.shape), model.hidden)
        if model.backbone == "cnn":
            return cnn(self.shape, model.hidden, model.batch_norm)
        if model.backbone == "text":
            return TextBackbone(self.config.data.vocabulary, model.embedding, model.hidden[-1])
        raise choose("model.backbone", model.backbone, ["mlp", "cnn", "text", "module:function"])


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
