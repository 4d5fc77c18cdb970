"""What goes wrong in a run, each reason said once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedjoint._util.wording import who
from fedjoint.config.schema import Config
from fedjoint.runs.record import Failure, RoundRecord
from fedjoint.server.callbacks import Callback

log = logging.getLogger("fedjoint")


class Troubles(Callback):
    """Says who failed and why, why a merge was left out, why clients are not batched: once each.

    A reason that was said is not said again for others, or in later rounds; a run's records have
    all of it.
    """

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._alone = False

    def on_run_begin(self, config: Config, path: Path) -> None:
        self._alone = config.local.alone is not None  # as it was asked for, or is faster

    def say(self, text: str) -> None:
        """Show a line."""
        log.warning("%s", text)

    def after_round(self, record: RoundRecord) -> None:
        for reason, text in _reasons(record):
            if reason not in self._said and not (self._alone and reason == record.fallback):
                self._said.add(reason)
                self.say(text)


def _reasons(record: RoundRecord) -> Iterator[tuple[str, str]]:
    at, clients = f"round {record.round}", record.clients
    if record.fallback:
        yield record.fallback, f"clients are not batched as usual: {record.fallback}"
    for reason, whom in by_reason(clients.failed):
        yield reason, f"{at}: {whom}: {reason}"
    for reason, whom in by_reason(clients.unevaluated):
        yield reason, f"{at}: {whom}: evaluation: {reason}"
    if record.kept:
        yield record.kept, f"{at}: the previous backbone is kept: {record.kept}"
    if clients.untrained:
        why = "clients that have not trained yet are in no metric"
        yield why, f"{at}: {why}: {clients.untrained}"


def by_reason(failures: Iterable[Failure]) -> Iterator[tuple[str, str]]:
    """Yield each reason, and whom it concerns: the first, and how many others."""
    whom: dict[str, list[Failure]] = {}
    for failure in failures:
        whom.setdefault(failure.reason, []).append(failure)
    for reason, (first, *others) in whom.items():
        more = f" and {len(others)} more" if others else ""
        yield reason, who(first.client, first.name or first.node) + more
