"""Transfer between tasks: what joint training gains over a run in which everyone trains alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedjoint.config.schema import Config
from fedjoint.errors import UserError
from fedjoint.model.tasks import Task
from fedjoint.runs.directory import RunDir
from fedjoint.runs.whole import check_whole

#: What may differ between a run and its reference: what is no part of training alone.
_FREE: dict[str, Any] = {
    "name": True,
    "strategy": True,
    "output": True,
    "engine": True,
    "diagnostics": True,
    "evaluate": {"every", "batch_size"},
    "local": {"method", "options", "path", "pack", "compile"},
}


class Reference:
    """The test metrics of a run of independent training.

    Args:
        path: its run directory.
        config: the run that is compared with it.
        own_problem: whether that run's problem was passed from Python, which has to be the same
            one then; None: not known here.

    Raises:
        UserError: it is no run, or not done, or its clients do not train alone, on the same
            data, from the same seed and with the same budget.
    """

    def __init__(self, path: str | Path, config: Config, own_problem: bool | None = None) -> None:
        self.path = path
        try:
            run = RunDir.open(Path(path))
            theirs, info = run.config(), run.info
            records = check_whole(run, states=False).records
        except UserError as error:
            raise UserError(f"diagnostics.reference: {error}") from None
        if theirs.local.method != "independent":
            method = theirs.local.method or f"that of strategy {theirs.strategy.name}"
            raise self._wrong(f"local method is {method}, not independent")
        own, other = _decisive(config), _decisive(theirs)
        for key in own | other:
            if own.get(key) != other.get(key):
                raise self._wrong(f"{key} is {other.get(key)}, here it is {own.get(key)}")
        if own_problem is not None and info["own_problem"] != own_problem:
            raise self._wrong("problem was passed from Python for one of the two runs alone")
        if info["status"] != "done":
            raise UserError(
                f"diagnostics.reference: {path} is not done, but {info['status']}: resume it first"
            )
        self.test = {r.round: r.test for r in records if r.evaluation}
        if not self.test:
            raise UserError(f"diagnostics.reference: {path} has no evaluation: run it again")

    def _wrong(self, what: str) -> UserError:
        return UserError(
            f"diagnostics.reference: {self.path} is no reference: its {what}; run it again with "
            "this run's settings and local.method = 'independent'"
        )

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


def _decisive(config: Config) -> dict[str, object]:
    """Return what decides the numbers of training alone: setting -> value.

    Of the strategy, only who takes part in a round: nothing is merged.
    """
    tree = config.model_dump(exclude=_FREE)
    return _flat(tree) | {"strategy.fraction": config.strategy.fraction}


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
