"""What does not fit, over every kind of model and task: one line, before the first round."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from support.zoo import cases
from torch import nn

from fedjoint import Client, Examples
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.model.stream import Stream, loaded
from fedjoint.model.tree import each, named
from fedjoint.registry import load_object
from fedjoint.simulation import simulate

CASES = cases()


class Changed:
    """The same clients, each with other inputs or labels."""

    def __init__(self, data, change):
        self._data, self._change = data, change
        self.task_names, self.sizes, self.tasks = data.task_names, data.sizes, data.tasks

    def client(self, index):
        own = self._data.client(index)
        return Client(*map(self._change, (own.train, own.valid, own.test)))


def refused(case, folder, words, change=None, tasks=None, **settings):
    """Make sure that a case with a change is refused in one line that has ``words``."""
    tree = {"rounds": 1, "engine": "inline", "local": {"batch_size": 4}, **settings}
    config = check({**tree, "output": {"dir": str(folder / "runs")}})
    problem = load_object(case)(config)
    data = problem.data if change is None else Changed(problem.data, change)
    with pytest.raises(UserError) as caught:
        simulate(config, replace(problem, data=data, tasks=tasks or problem.tasks))
    line = str(caught.value)
    assert words in line and "\n" not in line, line
    assert not any(path.read_text() for path in folder.glob("runs/*/metrics.jsonl"))


def inputs(change):
    """Return what changes the inputs of examples, a tensor or a dict of them."""

    def act(examples):
        x = change(loaded(examples.x))
        streams = isinstance(examples.x, Stream)
        return Examples(Stream(x.numpy()) if streams else x, examples.y)

    return act


def labels(task, change):
    """Return what changes the labels of a task."""
    return lambda own: Examples(own.x, {**own.y, task.name: change(own.y[task.name].clone())})


def out_of_range(task):
    """Return what makes a label one that the task does not have, and what is said of it."""
    if task.kind in ("regression", "dense_regression"):
        return lambda y: torch.full_like(y, torch.inf), "a label is infinite"
    if task.kind == "multilabel":
        return lambda y: torch.full_like(y, 0.5), "a label is 0.5; give 0, 1"
    if task.kind == "detection":
        return lambda y: torch.full_like(y, 1.0), "a box has the corners 1, 1, 1, 1"
    return lambda y: torch.full_like(y, task.outputs), f"class {task.outputs} of {task.outputs}"


def tasks_of(case):
    return load_object(case)(check({})).tasks


@pytest.mark.parametrize("case", CASES)
def test_labels_out_of_range(case, tmp_path):
    for task in tasks_of(case):
        change, said = out_of_range(task)
        words = f"task {task.name!r}: {said}"
        refused(case, tmp_path, words, labels(task, change))


@pytest.mark.parametrize("case", CASES)
def test_labels_of_another_shape(case, tmp_path):
    for task in tasks_of(case):
        refused(
            case, tmp_path, f"task {task.name!r}: labels are", labels(task, lambda y: y[..., None])
        )


@pytest.mark.parametrize("case", CASES)
def test_inputs_of_another_shape(case, tmp_path):
    refused(case, tmp_path, "inputs", inputs(lambda x: each(lambda t: t[:, None], x)))


@pytest.mark.parametrize("case", CASES)
def test_a_head_that_does_not_fit(case, tmp_path):
    tasks = list(tasks_of(case))
    tasks[0] = replace(tasks[0], head=lambda features: nn.Linear(77, 1))
    refused(case, tmp_path, f"the head of task {tasks[0].name!r}", tasks=tasks)


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_of_another_model(case, tmp_path):
    save_file({"another.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    model = {"initial": str(tmp_path / "other.safetensors")}
    refused(case, tmp_path, "model.initial", model=model)


def of_ids(case):
    example = load_object(case)(check({})).example
    return [name for name, part in named(example).items() if part.dtype == torch.int64]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.values[0] and of_ids(case.values[0])]
)
def test_ids_that_the_model_does_not_know(case, tmp_path):
    for wrong in (-1, 1000):
        change = inputs(
            lambda x, id=wrong: each(
                lambda t: t.masked_fill(t >= 0, id) if t.dtype == torch.int64 else t, x
            )
        )
        refused(case, tmp_path, f"has the id {wrong}, and the model's embedding has those", change)


def test_a_mask_of_another_length(tmp_path):
    change = inputs(lambda x: {**x, "mask": x["mask"][:, 1:]})
    case = "support.zoo.inputs:ragged_text"
    refused(case, tmp_path, "'mask' has the length", change)
