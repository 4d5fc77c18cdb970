"""``fedjoint export`` and ``fedjoint predict``."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fedjoint.cli.common import client_ids, console, parts
from fedjoint.errors import UserError
from fedjoint.exports.export import export
from fedjoint.exports.predict import predict, predict_arrays
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
    best: Annotated[
        bool,
        typer.Option("--best", help="The best round by validation, of a run with keep_best."),
    ] = False,
    formats: Annotated[
        list[str],
        typer.Option("--format", help="safetensors, export (torch.export) or onnx; repeatable."),
    ] = ["safetensors"],  # noqa: B006 (typer's way)
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write; default: RUN/export/TASK, or TASK-client-ID."),
    ] = None,
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
    ids = client_ids(clients)
    if data is not None and not ids:
        raise UserError("--data needs --clients, the ids whose data it is")
    own = own_data(data, parts(tasks))
    exported = export(run, task, client=client, best=best, state=state, clients=ids, data=own)
    name = (task if client is None else f"{task}-client-{client}") + ("-best" if best else "")
    folder = output or run / "export" / name
    exported.write(folder, formats)
    console.print(f"{exported.card.origin.how}: {folder}", soft_wrap=True, markup=False)


def predict_command(
    model: Annotated[Path, typer.Argument(help="A folder that fedjoint export wrote.")],
    file: Annotated[
        Path,
        typer.Argument(
            help=".csv, .tsv or .parquet with a header, .npy, .txt (a sentence a line), IDX."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write: a table in CSV, or arrays in .npz, as maps and boxes need it; "
            "default: the screen."
        ),
    ] = None,
) -> None:
    """Predict a row per input: class and probability, labels and probabilities, or values."""
    if output is not None and output.exists() and output.samefile(file):
        raise UserError(f"--output {output}: that is the file to read; name another")
    if output is not None and output.suffix == ".npz":
        arrays = io.BytesIO()
        np.savez(arrays, allow_pickle=False, **predict_arrays(model, file))
        write_bytes(output, arrays.getvalue())
        return
    columns, rows = predict(model, file)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    if output is None:
        sys.stdout.write(text.getvalue())
        return
    write_bytes(output, text.getvalue().encode())
