"""Runs on a deployment: started, followed, resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedjoint.config.schema import Config
from fedjoint.deploy.news import News
from fedjoint.errors import UserError
from fedjoint.flower.programs import Connection, follow, make_app_folder
from fedjoint.runs.directory import RunDir
from fedjoint.runs.record import RoundRecord
from fedjoint.runs.whole import check_extendable, check_whole
from fedjoint.server.plugins import check_plugins


def start(config: Config, connection: Connection) -> tuple[RunDir, str]:
    """Start a run on the nodes of a server on this machine; return it and its number there.

    Raises:
        UserError: a setting is wrong, or the server refuses the run.
    """
    check_plugins(config)
    run = RunDir.create(Path(config.output.dir), config.name, config)
    return run, _submit(run, connection)


def restart(
    path: Path, connection: Connection, settings: Mapping[str, Any] | None = None
) -> tuple[RunDir, str]:
    """Continue a run from its newest checkpoint; stop what may still be going of it.

    Args:
        path: the run directory.
        connection: to the server.
        settings: path -> value, of those that may change, see
            :meth:`fedjoint.runs.directory.RunDir.change`.

    Raises:
        UserError: it is done, or no run, or a file of it is missing, damaged or of another run.
    """
    run = RunDir.open(path)
    whole = check_whole(run)
    settings = settings or {}
    if "rounds" in settings:
        check_extendable(run, whole, settings["rounds"])
    if settings:
        run.change(settings)
    if whole.final and whole.final.round >= run.config().rounds:
        raise UserError(f"{path}: the run is done; --set rounds=N lets it go on")
    number = run.number()
    # A server that was killed takes the run that died with it for alive.
    if number and connection.status(number) in ("pending", "starting", "running"):
        connection.stop(number)
    return run, _submit(run, connection)


def attend(
    run: RunDir,
    number: str,
    connection: Connection,
    on_round: Callable[[RoundRecord], object],
    on_news: Callable[[str], None],
    there: Callable[[], bool],
) -> None:
    """Wait for a run to end.

    Args:
        run: its directory.
        number: of the run on the server.
        connection: to the server.
        on_round: gets the records of new rounds.
        on_news: gets what happens to nodes, in lines.
        there: whether the server accepts connections.

    Raises:
        UserError: it fails, or the server goes away.
    """
    news = News(run.path / "log.jsonl")

    def tell() -> None:
        for line in news.of_nodes():
            on_news(line)

    again = f"fedjoint deploy --resume {run.path}"
    try:
        status = follow(connection, number, run, on_round, tell, there)
    except UserError as error:
        raise UserError(f"{error}; once the server is back: {again}") from None
    tell()
    if status.endswith("completed"):
        return
    if not (run.path / "log.jsonl").exists():
        raise UserError(
            f"the run {status} before it began; is {run.path} writable for the server, which has "
            "to run as the same user? Its output says more"
        )
    why = news.last_error or "no error is logged"
    raise UserError(f"the run {status}: {why}; see {run.path / 'log.jsonl'}, then {again}")


def _submit(run: RunDir, connection: Connection) -> str:
    app = make_app_folder(run.path / "flower-app")
    number = connection.submit(app, {"run-dir": str(run.path.resolve())})
    run.write_number(number)
    return number
