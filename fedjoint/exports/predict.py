"""Predictions of an exported model on a file."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedjoint._util.wording import first_line
from fedjoint.config.load import check
from fedjoint.errors import ANYTHING, UserError
from fedjoint.exports.inputs import read_inputs
from fedjoint.exports.model import FILES, Card, Target, load, read_card, read_model
from fedjoint.model.tasks import KINDS
from fedjoint.model.tree import Input, count, each, named
from fedjoint.problem import Problem, build_problem

_BATCH = 1024


#: kinds of task of which a row of a table has all that is predicted
_CLASSES = ("multiclass", "preference", "tokens", "language")
_FLAT = (*_CLASSES, "multilabel", "regression")


def predict(
    folder: Path, file: Path, problem: Problem | None = None
) -> tuple[list[str], list[list[str]]]:
    """Return column names, and one row of cells per input in ``file``.

    ``folder`` holds ``model.safetensors``, or ``model.onnx``, which runs in onnxruntime.
    ``torch.export`` files are for programs of your own: loading one may unpickle what it holds.

    Args:
        folder: of the export.
        file: of inputs, see :func:`fedjoint.exports.inputs.read_inputs`.
        problem: the run's own, where its backbone or heads are code.

    Raises:
        UserError: the model or the file is missing or malformed, they do not fit, or what is
            predicted is no row.
    """
    card = read_card(folder)
    target = card.target
    if target.kind not in _FLAT:
        raise UserError(
            f"{target.name} is {target.kind}, and its predictions are no rows of a table: give "
            "--output a name that ends in .npz"
        )
    return columns(target), rows(target, _outputs(folder, card, file, problem))


def predict_arrays(
    folder: Path, file: Path, problem: Problem | None = None
) -> dict[str, np.ndarray]:
    """Return what is predicted of the inputs in ``file`` as arrays with a row for each.

    The one named as the task is what is predicted; others, such as ``probability``, how surely. Of
    boxes it has the corners, beside ``class`` and ``score``, the surest first.

    The arguments are those of :func:`predict`.

    Raises:
        UserError: as for :func:`predict`.
    """
    card = read_card(folder)
    target, output = card.target, _outputs(folder, card, file, problem)
    found = KINDS[target.kind].predicted(output)
    return {name or target.name: part.numpy() for name, part in found.items()}


def problem_of(folder: Path, reference: str) -> Problem:
    """Return the problem of the run that an export is of, which is code: it is run.

    Args:
        folder: of the export.
        reference: of the problem, as in the run's settings.

    Raises:
        UserError: there is none, or it cannot be made.
    """
    return build_problem(check({"problem": reference, "seed": read_card(folder).origin.seed}))


def _outputs(folder: Path, card: Card, file: Path, problem: Problem | None) -> Tensor:
    run = _runner(folder, card, problem)
    x = read_inputs(file, card.inputs)
    try:
        parts = (slice(at, at + _BATCH) for at in range(0, count(x), _BATCH))
        return torch.cat([run(each(itemgetter(at), x)) for at in parts])
    except ANYTHING as error:  # what a model, or onnxruntime, makes of numbers it does not know
        raise UserError(f"{file}: the model refuses it: {first_line(error)}") from None


def columns(target: Target) -> list[str]:
    """Return the names of the columns of :func:`rows`."""
    if target.kind in _CLASSES:
        return [target.name, "probability"]
    names = [f"{target.name}.{k}" for k in range(target.outputs)]
    if target.kind == "regression":
        return [target.name] if target.outputs == 1 else names
    return names + [f"probability.{k}" for k in range(target.outputs)]


def rows(target: Target, output: Tensor) -> list[list[str]]:
    """Write outputs ``[n, outputs]`` as cells: what is predicted and, of classes, how surely.

    A label is 1 where its probability is above one half, as in the metrics. Of a sequence, a cell
    has what is predicted at each position, with spaces between.
    """
    if target.kind == "regression":
        return [[str(value) for value in row] for row in output.numpy()]
    if target.kind == "multilabel":
        said, sure = (output > 0).int().tolist(), output.sigmoid().numpy()
        return [[*map(str, labels), *map(str, p)] for labels, p in zip(said, sure, strict=True)]
    best, chosen = output.softmax(-1).max(-1)
    # A class that was declared but never seen has no name.
    names = target.classes or []
    names = [*names, *map(str, range(len(names), target.outputs))]
    if target.size:
        return [
            [" ".join(names[k] for k in row), " ".join(map(str, sure))]
            for row, sure in zip(chosen.tolist(), best.numpy(), strict=True)
        ]
    return [[names[k], str(p)] for k, p in zip(chosen.tolist(), best.numpy(), strict=True)]


def _runner(folder: Path, card: Card, problem: Problem | None = None) -> Callable[[Input], Tensor]:
    """Return what maps inputs to outputs."""
    onnx = folder / FILES["onnx"]
    built = card.rebuilt and (folder / FILES["safetensors"]).is_file()
    if onnx.is_file() and not built and problem is None:
        return _onnx(onnx, read_model(folder, card, onnx.name))
    return torch.inference_mode()(load(folder, card, problem).forward)


def _onnx(path: Path, model: bytes) -> Callable[[Input], Tensor]:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path}: needs onnxruntime; pip install 'fedjoint[onnx]'") from None
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds have no common base
        first = str(error).partition("\n")[0]
        raise UserError(f"{path}: {first}; export again") from None

    def run(x: Input) -> Tensor:
        arrays = {name or "x": tensor.numpy() for name, tensor in named(x).items()}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run
