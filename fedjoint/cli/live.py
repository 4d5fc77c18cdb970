"""The progress of a run, on the terminal."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedjoint._util.wording import figure
from fedjoint.cli.common import console
from fedjoint.runs.record import RoundRecord
from fedjoint.server.troubles import Troubles


class Live(Troubles):
    """A progress bar of rounds, with the newest objective and metrics; above it what goes wrong.

    Args:
        rounds: how many there are.
        label: what runs.
    """

    def __init__(self, rounds: int, label: str):
        super().__init__()
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
        super().after_round(record)

    def say(self, text: str) -> None:
        """Show a line, above the bar."""
        # As it is: much of it was written elsewhere.
        self.progress.console.print(text, markup=False, soft_wrap=True)


def news(record: RoundRecord) -> str:
    """Return a round in a few words."""
    words = [] if record.objective is None else [f"objective {figure(record.objective, 3)}"]
    # One metric of each task, which is what a line has room for.
    known = {n: value for n, value in record.test.items() if value is not None and "/" not in n}
    words += [f"{task} {figure(value, 3)}" for task, value in known.items()]
    return "  ".join(words)
