"""The progress of a run, on the terminal."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedjoint._util.wording import who
from fedjoint.cli.common import console
from fedjoint.runs.record import RoundRecord
from fedjoint.server.callbacks import Callback


class Live(Callback):
    """A progress bar of rounds with the objective and the metrics of the newest.

    Args:
        rounds: how many there are.
        label: what runs.
    """

    def __init__(self, rounds: int, label: str):
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[news]}", markup=False),
            console=console,
        )
        self.bar = self.progress.add_task(label, total=rounds, news="starting")

    def __enter__(self) -> Live:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def after_round(self, record: RoundRecord) -> None:
        self.progress.update(self.bar, completed=record.round, news=news(record))
        for failure in record.clients.failed:
            at = who(failure.client, failure.name or failure.node)
            self.say(f"round {record.round}: {at}: {failure.reason}")
        if record.kept:
            self.say(f"round {record.round}: the previous backbone is kept: {record.kept}")
        if record.fallback and record.round == 1:
            self.say(f"clients train one by one: {record.fallback}")

    def say(self, text: str) -> None:
        """Show a line, above the bar."""
        # As it is: much of it was written elsewhere.
        self.progress.console.print(text, markup=False, soft_wrap=True)


def news(record: RoundRecord) -> str:
    """Return a round in a few words."""
    words = [] if record.objective is None else [f"objective {record.objective:.3f}"]
    words += [f"{task} {value:.3f}" for task, value in record.test.items() if value is not None]
    return "  ".join(words)
