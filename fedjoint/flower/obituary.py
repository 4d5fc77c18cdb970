"""Notes in a run's directory that its process was killed: options are the directory, and by what.

A program of its own, as a server does without PyTorch, which the run's directory needs.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from fedjoint._util.logs import add_line, start_logging
from fedjoint.errors import UserError
from fedjoint.runs.directory import RunDir

log = logging.getLogger("fedjoint.flower")


def main() -> None:
    """Note it, or say why that is not possible."""
    start_logging()
    path, why = sys.argv[1:]
    try:
        run = RunDir.open(Path(path))
        add_line(run.path / "log.jsonl", logging.ERROR, log.name, f"the run ends: {why}")
        if run.status in ("created", "running"):
            run.mark("failed")
    except (UserError, OSError) as error:
        log.error("that the run failed cannot be noted: %s", error)


if __name__ == "__main__":
    main()
