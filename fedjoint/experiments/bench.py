"""Strategies side by side, on the same partitions, against training alone and per task."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fedjoint.config.schema import Config
from fedjoint.engines.base import make_engine
from fedjoint.errors import UserError
from fedjoint.experiments.arms import Arm, OnRun, Way, mean
from fedjoint.experiments.entries import entry_configs
from fedjoint.experiments.intervals import columns, holm, interval, p_value
from fedjoint.experiments.paired import Paired, overall
from fedjoint.experiments.per_task import PER_TASK
from fedjoint.experiments.search import Search
from fedjoint.experiments.splits import overlap
from fedjoint.experiments.statistics import mean_ranks
from fedjoint.experiments.trivial import by_seed, idle
from fedjoint.experiments.tune import Tuner, Tuning, trained
from fedjoint.experiments.ways import ALONE, as_it_is
from fedjoint.problem import build_problem
from fedjoint.server.strategy import make_strategy

log = logging.getLogger("fedjoint.bench")


@dataclass(frozen=True)
class Bench:
    """Strategies and what they are compared with.

    Attributes:
        arms: strategy -> its runs.
        references: every client alone, then every task with a backbone of its own, where that
            is another thing than joint training.
        merged_by: the strategy of the per-task arm.
        failed: strategy -> why it could not be run.
        left_out: reference -> why it is not there.
        overlap: of the seeds' splits, see :func:`fedjoint.experiments.intervals.interval`.
        tuning: what was tried for each arm; empty where nothing was tuned.
        trivial: task -> test metric of the trivial predictor, by seed, see
            :func:`fedjoint.experiments.trivial.trivial`.
    """

    arms: dict[str, Arm]
    references: dict[str, Arm]
    merged_by: str = "fedavg"
    failed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    overlap: float = 0.0
    tuning: dict[str, Tuning] = field(default_factory=dict)
    trivial: dict[str, list[float]] = field(default_factory=dict)

    @cached_property
    def idle(self) -> tuple[str, ...]:
        """Tasks on which no arm is better than the trivial predictor."""
        tasks = next(iter(self.references.values())).tasks
        return tuple(idle(tasks, self.everyone.values(), self.trivial)) if self.trivial else ()

    @cached_property
    def everyone(self) -> dict[str, Arm]:
        """The strategies and the references, by name."""
        return {**self.arms, **self.references}

    def against(self, reference: str) -> dict[str, Paired]:
        """Return everyone else, compared with a reference."""
        other = self.references[reference]
        return {
            n: Paired(other, a, self.overlap, self.idle)
            for n, a in self.everyone.items()
            if a is not other
        }

    def p_values(self, reference: str) -> dict[tuple[str, str], float]:
        """Return the p-values of everyone's gain over a reference, by name and task.

        They are corrected for all of them by Holm's method.
        """
        return holm(
            {
                (name, task.name): p_value(pair.gain(task), self.overlap)
                for name, pair in self.against(reference).items()
                for task in pair.arm.tasks
            }
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per arm, the best mean rank first, those that lack a metric last.

        For each reference, ``Delta-m % vs ...`` compares seed by seed, and is NaN where any seed
        lacks a metric; ``p vs ...`` is its p-value, corrected by Holm's method for the arms;
        ``won vs ...`` is the share of tasks won. ``test`` is the raw mean over tasks, ``worst
        task`` the least. Each is the mean over the seeds that have it (``... seeds``) with half
        the width of its interval (``... 95 %``). A task's name is its test metric, and
        ``task/metric`` a further one. With the name, `` gain vs ...`` is by how much it is better
        than a reference, and ``std``, ``worst client`` and ``worst tenth`` are over the clients'
        own metrics. ``kept rounds`` counts, over all seeds, those without a merge.
        """
        tasks = next(iter(self.references.values())).tasks
        scores = {
            name: [v for task in tasks for v in arm.best(task.name)]
            for name, arm in self.everyone.items()
        }
        rows = {name: self._row(name, arm) for name, arm in self.everyone.items()}
        seeds = len(next(iter(self.references.values())).seeds)
        ups = [task.metric_fn.higher_is_better for task in tasks for _ in range(seeds)]
        for name, rank in mean_ranks(scores, ups).items():
            rows[name]["mean rank"] = rank
        for reference in self.references:
            self._compare(reference, rows)
        return sorted(rows.values(), key=lambda r: (self._lacks(r["strategy"]), r["mean rank"]))

    def _row(self, name: str, arm: Arm) -> dict[str, Any]:
        row: dict[str, Any] = {"strategy": name, "mean rank": math.nan, "seeds": len(arm.seeds)}
        row |= columns("test", interval(arm.scores(), self.overlap))
        row |= columns("worst task", interval(arm.worst(), self.overlap))
        row |= {
            "conflicting pairs": mean(share for _, share in arm.conflicts()),
            "learning rate": arm.rate,
            "steps per client": mean(arm.steps_per_client),
            "steps": mean(arm.steps),
            "MB": mean(arm.megabytes),
            "seconds a run": mean(arm.seconds),
            "kept rounds": sum(arm.kept),
        }
        for task in arm.tasks:
            for measure in task.measures:
                found = arm.best(task.name, measure=measure)
                row |= columns(measure, interval(found, self.overlap))
            row[f"{task.name} std"] = mean(arm.spread(task.name, "std"))
            row[f"{task.name} worst client"] = mean(arm.spread(task.name, "worst"))
            row[f"{task.name} worst tenth"] = mean(arm.spread(task.name, "worst_tenth"))
        return row

    def _compare(self, reference: str, rows: dict[str, dict[str, Any]]) -> None:
        pairs, by_task = self.against(reference), self.p_values(reference)
        found = overall(pairs)
        for name, pair in pairs.items():
            row = rows[name]
            row |= columns(f"Delta-m % vs {reference}", pair.interval(pair.delta_m()))
            row[f"p vs {reference}"] = found[name]
            row[f"won vs {reference}"] = pair.interval(pair.won()).mean
            for task in pair.arm.tasks:
                row[f"{task.name} gain vs {reference}"] = mean(pair.gain(task))
                row[f"{task.name} p vs {reference}"] = by_task[name, task.name]

    def _lacks(self, name: str) -> bool:
        """Return whether an arm lacks a task's metric in some seed."""
        arm = self.everyone[name]
        return any(math.isnan(score) for score in arm.scores())


def bench_strategies(
    config: Config,
    strategies: Sequence[str],
    seeds: int,
    *,
    per_task: str | None = None,
    corrected: bool = True,
    search: Search | None = None,
    on_run: OnRun = lambda name, seed: None,
) -> Bench:
    """Run every strategy with ``seeds`` seeds; data and partition depend on the seed alone.

    A strategy that cannot be run, or of which no merge succeeds, is reported, and the others go
    on.

    Args:
        config: everything but the strategy.
        strategies: names, with options where they are wanted, see
            :func:`fedjoint.experiments.entries.entry_configs`.
        seeds: how many.
        per_task: the strategy, named in the same way, that merges the updates of one task's
            clients in the per-task arm; by default ``config``'s own.
        corrected: widen intervals by what the splits of one data set have in common.
        search: what is tuned, alike for every arm; None: nothing.
        on_run: hears of each run as it starts.

    Raises:
        UserError: a name or an option is wrong, or nobody can be trained alone.
    """
    configs, alike = _settings(config, strategies, per_task)
    for made in [*configs.values(), alike]:
        make_strategy(made)
    first = build_problem(config)
    references = [(ALONE, config), (PER_TASK, alike)]
    left_out, failed = {}, {}
    if len(first.tasks) == 1:
        left_out[PER_TASK.name] = "with one task, it is joint training"
        references.pop()
    ways = [(Way(name, as_it_is), made) for name, made in configs.items()]
    tuner = Tuner(search, first, config.seed + seeds, on_run)
    tuner.check(references + ways)
    compared, arms = {}, {}
    with make_engine(config.engine).session():
        for way, made in references:
            try:
                compared[way.name] = trained(way, made, seeds, tuner, on_run)
            except UserError as error:
                if way is ALONE:
                    raise
                left_out[way.name] = str(error)
        for way, made in ways:
            try:
                arms[way.name] = trained(way, made, seeds, tuner, on_run)
            except UserError as error:
                failed[way.name] = str(error)
            except Exception as error:  # a plug-in may raise anything
                log.exception("%s failed", way.name)
                failed[way.name] = f"{type(error).__name__}: {error}"
    common = overlap(config, first) if corrected else 0.0
    scores = by_seed(config, seeds)
    return Bench(arms, compared, alike.strategy.name, failed, left_out, common, tuner.found, scores)


def _settings(
    config: Config, strategies: Sequence[str], per_task: str | None
) -> tuple[dict[str, Config], Config]:
    """Return each strategy's configuration, and that of the per-task arm.

    Raises:
        UserError: an entry is malformed, or ``strategy.options`` belong to none of them.
    """
    own = config.strategy.name
    bare = config.model_copy(
        update={"strategy": config.strategy.model_copy(update={"options": {}})}
    )

    def is_own(entry: str) -> bool:
        return entry.partition("[")[0].strip() == own

    alike = config
    if per_task is not None:
        alike = entry_configs(config if is_own(per_task) else bare, [per_task])[per_task]
    # The scenario's options are the per-task arm's, where its own strategy is used nowhere else.
    elsewhere = alike.strategy.name == own and not any(map(is_own, strategies))
    return entry_configs(bare if elsewhere else config, strategies), alike
