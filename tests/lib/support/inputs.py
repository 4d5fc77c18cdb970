"""Inputs of a model in files of every kind that can hold them."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor


def write(folder, x):
    """Write inputs, a tensor or a dict of them, and return the files."""
    arrays = {"x": x.numpy()} if isinstance(x, Tensor) else {n: t.numpy() for n, t in x.items()}
    np.savez(folder / "x.npz", **arrays)
    columns = {name: [row.tolist() for row in array] for name, array in arrays.items()}
    if "mask" in arrays:  # lists of unequal length have no padding
        lengths = arrays["mask"].sum(1)
        columns = {
            n: [row[:k] for row, k in zip(rows, lengths, strict=True)]
            for n, rows in columns.items()
        }
    pq.write_table(pa.table(columns), folder / "x.parquet")
    files = ["x.npz", "x.parquet"]
    if isinstance(x, Tensor):
        np.save(folder / "x.npy", arrays["x"])
        files.append("x.npy")
        if x.ndim == 2 and x.is_floating_point():
            with (folder / "x.csv").open("w", newline="") as file:
                csv.writer(file).writerows([[f"x{k}" for k in range(x.shape[1])], *x.tolist()])
            files.append("x.csv")
    return [folder / name for name in files]
