"""A run directory is one thing: are its files together what one run left?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.runs.checkpoints import Checkpoint
from fedjoint.runs.directory import RunDir
from fedjoint.runs.ledger import Ledger
from fedjoint.runs.record import RoundRecord

_ENDED = ("done", "stopped")


@dataclass(frozen=True)
class Whole:
    """What a run directory holds, once all of it was looked at.

    Attributes:
        status: of the run.
        records: of the rounds, from the first.
        saved: the newest checkpoint; None: none was saved.
        final: the run after its last round, without the strategy's state; None: it has not ended.
        best: the run after its best round by validation; None: none is kept.
    """

    status: str
    records: list[RoundRecord]
    saved: Checkpoint | None
    final: Checkpoint | None
    best: Checkpoint | None = None

    @property
    def newest(self) -> Checkpoint | None:
        """The run as it ended, or as it goes on from; None: from its beginning."""
        return self.final if self.status in _ENDED else self.saved


def check_whole(run: RunDir, *, states: bool = True) -> Whole:
    """Make sure that no file of a run directory is missing, damaged, or of another run.

    What a kill at any instant leaves is whole: a resume goes on from the newest checkpoint, and
    does again what came after it. Nothing is written.

    Args:
        run: the directory.
        states: look at the clients' private state, too, which a live run is writing.

    Raises:
        UserError: something is not as the run left it; the line names the file.
    """
    # What was interrupted has no more of an end than what failed.
    status = "failed" if run.info.get("interrupted") else run.status
    config = run.config()
    # In this order, as a live run writes records before checkpoints.
    final = run.final()
    # A done run goes on from nothing: its checkpoints may be deleted.
    saved = run.latest() if run.has_checkpoints or status != "done" else None
    whole = Whole(status, run.records(), saved, final if status in _ENDED else None)
    best, newest = run.best(), whole.newest
    if best and newest and best.round <= newest.round:  # else it is of rounds to be done again
        whole = replace(whole, best=best)
    _check_rounds(run, whole, first=0 if config.evaluate.initial else 1)
    if states and not run.info.get("deployed"):
        _check_states(run, whole)
    return whole


def check_extendable(run: RunDir, whole: Whole, rounds: int) -> None:
    """Make sure that a run can have more rounds.

    Args:
        run: the directory.
        whole: what it holds.
        rounds: how many in all.

    Raises:
        UserError: it has done as many already, the number is out of range, or the run has ended
            and its last checkpoint is gone.
    """
    ended = whole.records[-1].round if whole.records else 0
    if rounds <= ended:
        raise UserError(f"{run.path}: rounds = {rounds}, and {ended} are done; give more")
    check({"rounds": rounds})
    done = whole.final.round if whole.final else 0
    if done and (whole.saved is None or whole.saved.round < done):
        raise UserError(
            f"{run.path}: the checkpoint of round {done}, from which further rounds go on, is "
            "missing; restore it from a backup, or start a new run"
        )


def _check_rounds(run: RunDir, whole: Whole, first: int) -> None:
    newest, written = whole.newest, whole.records[-1].round if whole.records else 0
    if whole.records and whole.records[0].round != first:
        raise UserError(
            f"{run.path}: metrics.jsonl begins with round {whole.records[0].round}, not "
            f"{first}; restore the file from a backup"
        )
    if whole.status in _ENDED and newest is None:
        raise UserError(
            f"{run.path}: the run is {whole.status}, and final/backbone.safetensors is missing; "
            "restore it from a backup"
        )
    if newest is None or written == newest.round:
        return
    if whole.status in _ENDED or written < newest.round:
        raise UserError(
            f"{run.path}: metrics.jsonl ends with round {written}, and the run has done "
            f"{newest.round}; restore the file from a backup"
        )


def _check_states(run: RunDir, whole: Whole) -> None:
    ledger = whole.newest.ledger if whole.newest else Ledger()
    if len(ledger.clients) or run.state.exists():
        run.states.check(ledger)
    if whole.best:
        run.states.check(whole.best.ledger)
