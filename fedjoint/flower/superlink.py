"""Flower's SuperLink behind our gate: ``python -m fedjoint.flower.superlink``, same options."""

from __future__ import annotations

import os
from pathlib import Path

from flwr.superlink import extensions
from flwr.superlink.cli import flower_superlink
from starlette.middleware import Middleware

from fedjoint.flower.badges import FOLDER
from fedjoint.flower.gate import Gate
from fedjoint.flower.node_keys import NodeKeys


def main() -> None:
    """Run the SuperLink."""
    own = extensions.get_middleware
    # Flower offers this hook to its own enterprise module alone. The first one is outermost.
    folder = os.environ.get(FOLDER)
    keys = NodeKeys(Path(folder)) if folder else None
    extensions.get_middleware = lambda: (Middleware(Gate, keys=keys), *own())
    flower_superlink()


if __name__ == "__main__":
    main()
