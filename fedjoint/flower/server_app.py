"""The Flower ServerApp: runs a scenario on whatever nodes the SuperLink has.

Its run configuration (``[tool.flwr.app.config]``, or ``flwr run --run-config``):

``scenario``: a registered name or a TOML file on the server.
``run-dir``: continue this run; empty starts a new one.
any key of the configuration, such as ``rounds`` or ``strategy.name``: in place of the scenario's.
"""

from __future__ import annotations

import logging
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
    nodes: Grid = FleetGrid(grid)  # type: ignore[assignment]
    deployed = not isinstance(grid, InMemoryGrid)
    serve(
        nodes,
        config,
        run,
        wait=config.strategy.timeout,
        deployed=deployed,
        badges=key_badges(grid) if deployed else None,
    )
