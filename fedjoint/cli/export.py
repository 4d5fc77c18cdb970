"""``fedjoint export`` and ``fedjoint predict``."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fedjoint.cli.common import client_ids, console, number, parts
from fedjoint.errors import UserError
from fedjoint.experiments.tables import table
from fedjoint.exports.export import export
from fedjoint.exports.predict import predict, predict_arrays, problem_of
from fedjoint.exports.together import ensemble as together
from fedjoint.node.own_data import own_data
from fedjoint.runs.files import write_bytes


def export_command(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    task: Annotated[str, typer.Option(help="Whose head.")],
    client: Annotated[
        int | None,
        typer.Option(
            help="Export this client's model: its head, and its own parts of the backbone where "
            "it has any. Default: the shared backbone and the mean of the heads of all clients "
            "with the task, weighted by training examples."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Take the clients of this group alone, where clients are in groups."),
    ] = None,
    backbone: Annotated[
        int | None,
        typer.Option(
            help="Of a strategy that keeps several backbones, this one, from 0, and the mean of "
            "the heads of the clients that have it. Default: the one of most clients."
        ),
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="The best round by validation, of a run with keep_best."),
    ] = False,
    formats: Annotated[
        list[str],
        typer.Option(
            "--format",
            help="safetensors, export (torch.export), onnx, or hf (of a pretrained backbone, what "
            "its own library loads); repeatable.",
        ),
    ] = ["safetensors"],  # noqa: B006 (typer's way)
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write; default: RUN/export/TASK, and what else is chosen."),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="One model of the models of all clients with the task."),
    ] = False,
    beside: Annotated[
        list[Path],
        typer.Option(
            "--with", help="One model of this run's model and that of RUN, too; repeatable."
        ),
    ] = [],  # noqa: B006
    state: Annotated[
        Path | None,
        typer.Option(
            help="File of the clients' private state. Default: RUN/state.sqlite, of a simulation; "
            "the heads of a deployed run never leave its nodes: export on the node."
        ),
    ] = None,
    clients: Annotated[
        str,
        typer.Option(help="On a node with --data: its client ids, as given to fedjoint client."),
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="On a node: its examples or TOML table, as given to fedjoint client."),
    ] = None,
    tasks: Annotated[
        str, typer.Option(help="On a node with --data: as given to fedjoint client.")
    ] = "",
) -> None:
    """Write one model, backbone and head, that works without the run.

    Next to it, model.json says what it reads and predicts, and whose heads are in it.
    """
    if ensemble or beside:
        one = client is not None or backbone is not None
        if (ensemble and beside) or one or state or clients or data or tasks:
            raise UserError("--ensemble, and --with RUN, stand alone beside --best and --format")
        _export_together([run, *beside], task, best, formats, output)
        return
    ids = client_ids(clients)
    if data is not None and not ids:
        raise UserError("--data needs --clients, the ids whose data it is")
    own = own_data(data, parts(tasks))
    exported = export(
        run,
        task,
        client=client,
        group=group,
        backbone=backbone,
        best=best,
        state=state,
        clients=ids,
        data=own,
    )
    chosen = {"client": client, "backbone": backbone}
    numbered = [f"{what}-{number}" for what, number in chosen.items() if number is not None]
    name = "-".join([task, *([group] if group else []), *numbered, *(["best"] if best else [])])
    folder = output or run / "export" / name
    exported.write(folder, formats)
    console.print(f"{exported.card.origin.how}: {folder}", soft_wrap=True, markup=False)


def _export_together(
    runs: list[Path], task: str, best: bool, formats: list[str], output: Path | None
) -> None:
    found = together([*runs], task, best=best)
    folder = output or runs[0] / "export" / (f"{task}-ensemble" + ("-best" if best else ""))
    found.exported.write(folder, formats)
    metric = found.task.metric_fn.name
    cells = [
        [str(row["model"]), *(number(row[key]) for key in ("weight", "valid", "test"))]
        for row in found.rows()
    ]
    title = f"{metric} of {task}: the members, and the ensemble"
    console.print(table(title, ["model", "weight", "valid", "test"], cells))
    gain = found.whole.test - found.best.test
    console.print(
        f"the ensemble less its best member by validation ({found.best.name}): {gain:+.3f}",
        markup=False,
    )
    console.print(f"{found.exported.card.origin.how}: {folder}", soft_wrap=True, markup=False)


def predict_command(
    model: Annotated[Path, typer.Argument(help="A folder that fedjoint export wrote.")],
    file: Annotated[
        Path,
        typer.Argument(
            help=".csv, .tsv or .parquet with a header, .npy, .npz, .txt (a sentence a line), IDX."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write: a table in CSV, or arrays in .npz, as maps and boxes need it; "
            "default: the screen."
        ),
    ] = None,
    problem: Annotated[
        str,
        typer.Option(help="FILE.py:NAME of the run's problem, where its model is code; it is run."),
    ] = "",
) -> None:
    """Predict a row per input: class and probability, labels and probabilities, or values."""
    if output is not None and output.exists() and output.samefile(file):
        raise UserError(f"--output {output}: that is the file to read; name another")
    code = problem_of(model, problem) if problem else None
    if output is not None and output.suffix == ".npz":
        arrays = io.BytesIO()
        np.savez(arrays, allow_pickle=False, **predict_arrays(model, file, code))
        write_bytes(output, arrays.getvalue())
        return
    columns, rows = predict(model, file, code)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    if output is None:
        sys.stdout.write(text.getvalue())
        return
    write_bytes(output, text.getvalue().encode())
