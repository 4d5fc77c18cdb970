"""The Flower ServerApp: runs a scenario on whatever nodes the SuperLink has.

Its run configuration (``[tool.flwr.app.config]``, or ``flwr run --run-config``):

``scenario``: a registered name or a TOML file on the server.
``run-dir``: continue this run; empty starts a new one.
any key of the configuration, such as ``rounds`` or ``strategy.name``: in place of the scenario's.
"""

from __future__ import annotations

import logging
import signal
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from fedjoint._util.logs import log_to
from fedjoint.config.scenario import scenario_config
from fedjoint.errors import UserError
from fedjoint.flower.badges import key_badges
from fedjoint.flower.grid import FleetGrid
from fedjoint.flower.run_config import run_to_resume, settings
from fedjoint.runs.directory import RunDir
from fedjoint.runs.whole import check_whole
from fedjoint.server.serve import serve
from fedjoint.server.stopping import StoppedError

log = logging.getLogger("fedjoint")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that are left."""
    values = context.run_config
    if path := run_to_resume(values):
        run = RunDir.open(Path(path))
        if check_whole(run).status == "done":
            raise UserError(f"{path}: the run is done")
        config = run.config()
    else:
        config = scenario_config(str(values["scenario"]), settings(values))
        run = RunDir.create(Path(config.output.dir), config.name, config)
    log_to(run.path / "log.jsonl")
    log.info("run directory %s", run.path.resolve())
    run.go_on()
    stop = Stopping(run)
    fleet = FleetGrid(grid, stop.asked)
    deployed = not isinstance(grid, InMemoryGrid)
    if deployed:  # else this is not the main thread
        stop.heed_signals(fleet)
    nodes: Grid = fleet  # type: ignore[assignment]
    wait = config.strategy.limit
    serve(
        nodes,
        config,
        run,
        wait=wait,
        deployed=deployed,
        badges=key_badges(grid) if deployed else None,
        stopping=stop.asked,
    )


class Stopping:
    """Whether a run is to stop: its server is asked to, or somebody left a note in its directory.

    Args:
        run: the directory.
    """

    def __init__(self, run: RunDir) -> None:
        self._run, self._signalled = run, False

    def asked(self) -> bool:
        """Return whether it is to stop."""
        return self._signalled or self._run.to_stop

    def heed_signals(self, fleet: FleetGrid) -> None:
        """Stop at SIGTERM; and at SIGINT, by which Flower says that the server has gone, at once.

        Args:
            fleet: says whether the run can be stopped just now.
        """

        def ask(*_: object) -> None:
            self._signalled = True

        def end(*_: object) -> None:
            self._signalled = True
            # Flower's own grid tries for ever to reach a server that has gone.
            raise StoppedError if fleet.early else SystemExit("the server has gone")

        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, end)
