"""Transfer between tasks: what joint training gains over a run in which everyone trains alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.runs.directory import RunDir


class Reference:
    """The test metrics of a run of independent training.

    Args:
        path: its run directory.
        config: the run that is compared with it.

    Raises:
        UserError: it is no run, has no evaluation, or is of another seed or other data.
    """

    def __init__(self, path: str | Path, config: Config) -> None:
        try:
            run = RunDir.open(Path(path))
            theirs, records = run.config(), run.records()
        except UserError as error:
            raise UserError(f"diagnostics.reference: {error}") from None
        for key in ("seed", "problem", "data"):
            if getattr(theirs, key) != getattr(config, key):
                raise UserError(
                    f"diagnostics.reference: {path} has another {key}: run it again with this "
                    "run's settings and local.method = 'independent'"
                )
        self.path = path
        self.test = {r.round: r.test for r in records if r.evaluation}
        if not self.test:
            raise UserError(f"diagnostics.reference: {path} has no evaluation; resume it first")

    def check(self, tasks: Iterable[Task]) -> None:
        """Refuse tasks that the reference has not.

        Raises:
            UserError: there is one.
        """
        known = sorted(set().union(*self.test.values()))
        missing = [task.name for task in tasks if task.name not in known]
        if missing:
            raise UserError(
                f"diagnostics.reference: {self.path} has tasks {known}, not {missing}: give a "
                "run of the same tasks"
            )

    def transfer(
        self, round: int, test: Mapping[str, float | None], tasks: Iterable[Task]
    ) -> dict[str, float | None]:
        """Return task -> gain in the test metric; negative where joint training hurts.

        Args:
            round: the round; None for every task where the reference was not evaluated in it.
            test: task -> the test metric, None where it is unknown.
            tasks: say which direction of the metric is better.
        """
        theirs = self.test.get(round, {})
        found: dict[str, float | None] = {}
        for task in tasks:
            own, other = test.get(task.name), theirs.get(task.name)
            sign = 1 if task.metric_fn.higher_is_better else -1
            found[task.name] = None if own is None or other is None else sign * (own - other)
        return found
