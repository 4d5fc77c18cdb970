"""Flower's SuperLink behind our gate: ``python -m fedjoint.flower.superlink``, same options."""

from __future__ import annotations

from flwr.superlink import extensions
from flwr.superlink.cli import flower_superlink
from starlette.middleware import Middleware

from fedjoint.flower.gate import Gate


def main() -> None:
    """Run the SuperLink."""
    own = extensions.get_middleware
    # Flower offers this hook to its own enterprise module alone. The first one is outermost.
    extensions.get_middleware = lambda: (Middleware(Gate), *own())
    flower_superlink()


if __name__ == "__main__":
    main()
