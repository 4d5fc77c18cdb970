"""The program ``fedjoint``, interruptible from its first import on."""

from fedjoint._util.interrupt import leave_at_once


def main() -> None:
    """Run the program, see :func:`fedjoint.cli.main`."""
    leave_at_once()
    from fedjoint.cli import main as run

    run()
