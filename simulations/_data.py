"""Where data are that are too large for the repository."""

from __future__ import annotations

import os
from pathlib import Path


def files(*names: str) -> list[str]:
    """Return the paths of files of sentences."""
    return [str(root() / "text" / name) for name in names]


def table(name: str) -> str:
    """Return the path of a table."""
    return str(root() / "tabular" / name)


def root() -> Path:
    """Return the folder that ``FEDJOINT_DATA`` names, by default ``../shared/data``."""
    return Path(os.environ.get("FEDJOINT_DATA") or "../shared/data").expanduser().resolve()


def mnist(test: bool = False) -> list[str]:
    """Return the paths of MNIST's images and of their labels."""
    name = "t10k" if test else "train"
    folder = root() / "vision" / "mnist"
    parts = ("images-idx3", "labels-idx1")
    return [str(folder / f"{name}-{part}-ubyte.gz") for part in parts]


def cifar(test: bool = False) -> str:
    """Return the path of CIFAR-10's images, with their labels."""
    return str(root() / "vision" / "cifar10" / f"{'test' if test else 'train'}.parquet")
