"""A suite: comparisons one after the other, whose arms are trained in parallel, and kept.

Of every comparison there is a folder. ``begun.json`` in it says what is compared, on which data;
``kept`` has the records of its runs; ``done.json`` is there once it is done, with the rows of the
suite's table. So a suite that was interrupted goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedjoint.config.own_code import own_code
from fedjoint.config.scenario import scenario_config
from fedjoint.config.schema import Config
from fedjoint.config.suite import ComparisonConfig, SuiteConfig
from fedjoint.data.unchanged import client_fingerprint
from fedjoint.errors import UserError
from fedjoint.experiments.arms import OnRun
from fedjoint.experiments.compare import Comparison, compare
from fedjoint.experiments.contestants import Contest, More, contest
from fedjoint.experiments.jobs import Training, in_parallel
from fedjoint.experiments.kept import Kept
from fedjoint.experiments.search import Search, read_search
from fedjoint.experiments.suite_table import rows_of
from fedjoint.problem import Problem
from fedjoint.protocol.wire import VERSION
from fedjoint.runs.files import read_bytes, write_bytes, writing
from fedjoint.runs.plain import plain

News = Callable[[str], None]

#: Writes what is shown of a comparison into its folder.
Report = Callable[[Comparison, Config, Path], None]


@dataclass(frozen=True)
class Entry:
    """A comparison of a suite.

    Attributes:
        name: its name.
        config: the joint run.
        seeds: how many.
        more: what it has beside the usual arms.
        search: what is tuned; None: nothing.
        folder: where it is kept.
    """

    name: str
    config: Config
    seeds: int
    more: More
    search: Search | None
    folder: Path

    @property
    def done(self) -> Path:
        """The file that is there once the comparison is done."""
        return self.folder / "done.json"

    def kept(self) -> Kept:
        """Return what trains its runs."""
        return Kept(self.folder / "kept")

    def contest(self, on_news: News = lambda text: None) -> Contest:
        """Return what is compared.

        Raises:
            UserError: a setting is wrong.
        """
        on_run = self.told_by(on_news)
        return contest(self.config, self.seeds, self.more, self.search, on_run, self.kept())

    def told_by(self, on_news: News) -> OnRun:
        """Return what hears of each run as it starts."""
        return lambda name, seed: on_news(f"{self.name}: {name}, seed {seed}")


def entries(
    suite: SuiteConfig,
    folder: Path,
    settings: Sequence[str] = (),
    *,
    only: Sequence[str] = (),
    seeds: int | None = None,
    tune: int | None = None,
    smoke: bool = False,
) -> list[Entry]:
    """Return the comparisons of a suite.

    Args:
        suite: the suite.
        folder: of the suite.
        settings: of every comparison, after its own.
        only: names of those that are wanted; none: all.
        seeds: in place of the suite's and the comparisons'.
        tune: in place of the suite's and the comparisons'.
        smoke: with the settings that the suite has for a quick try; of one seed, untuned, unless
            ``seeds`` or ``tune`` say otherwise.

    Raises:
        UserError: a setting is wrong, or there is no such comparison.
    """
    for setting in settings:
        if setting.partition("=")[0].strip() in ("name", "engine.name"):
            raise UserError(
                f"--set {setting}: a suite names its runs, and trains each in one process: leave "
                "that out (--workers says how many arms at a time)"
            )
    for name in only:
        if name not in suite.comparisons:
            known = ", ".join(suite.comparisons)
            raise UserError(f"suite {suite.name} has no comparison {name}: it has {known}")
    chosen = only or list(suite.comparisons)
    if smoke:
        settings = [*suite.smoke, *settings]
        seeds, tune = seeds or 1, tune or 0
    return [
        _entry(suite, name, suite.comparisons[name], folder / name, settings, seeds, tune)
        for name in chosen
    ]


def _entry(
    suite: SuiteConfig,
    name: str,
    asked: ComparisonConfig,
    folder: Path,
    settings: Sequence[str],
    seeds: int | None,
    tune: int | None,
) -> Entry:
    try:
        given = [*asked.set, *settings, "engine.name=inline", f"name={name}"]
        config = scenario_config(asked.scenario, given)
        trials = next(n for n in (tune, asked.tune, suite.tune) if n is not None)
        search = read_search(config, trials, asked.tune_over) if trials else None
    except UserError as error:
        raise UserError(f"comparison {name}: {error}") from None
    more = More(asked.full, asked.whole, asked.groups)
    return Entry(name, config, seeds or asked.seeds or suite.seeds, more, search, folder)


def run_suite(
    suite: Sequence[Entry],
    report: Report,
    *,
    workers: int = 0,
    on_news: News = lambda text: None,
) -> list[dict[str, Any]]:
    """Run the comparisons that are not done; return the rows of the suite's table.

    All are looked at before the first is trained.

    Args:
        suite: the comparisons.
        report: is told of each as it is done.
        workers: processes that train arms at a time; 0: as many as there are cores; with one,
            everything is trained here.
        on_news: hears what goes on.

    Raises:
        UserError: a setting is wrong, a comparison was begun with other settings or data, or
            nobody can be trained.
    """
    todo = []
    for entry in suite:
        on_news(f"{entry.name}: reading")
        made = _named(entry.name, entry.contest)
        _check_begun(entry, made.problem)
        if not entry.done.exists():
            todo.append((entry, [way.name for way in made.ways]))
    with in_parallel(workers, jobs=sum(len(ways) for _, ways in todo)) as pool:
        waiting = [
            (entry, [pool(Training(entry, way), f"{entry.name}: {way}") for way in ways])
            for entry, ways in todo
        ]
        for entry, trained in waiting:
            for finish in trained:
                finish(on_news)
            _finish(entry, report, on_news)
    return [row for entry in suite for row in _read(entry.done)["rows"]]


def _finish(entry: Entry, report: Report, on_news: News) -> None:
    """Compare what was trained, and whatever was not; write it."""
    found = _named(
        entry.name,
        lambda: compare(
            entry.config,
            entry.seeds,
            more=entry.more,
            search=entry.search,
            on_run=entry.told_by(on_news),
            run=entry.kept(),
        ),
    )
    report(found, entry.config, entry.folder)
    rows = plain(list(rows_of(entry.name, found)))
    write_bytes(entry.done, json.dumps({"rows": rows}).encode())
    on_news(f"{entry.name}: done")


def _named(name: str, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except UserError as error:
        raise UserError(f"comparison {name}: {error}") from error


def _check_begun(entry: Entry, problem: Problem) -> None:
    """Note what a comparison is made of, or make sure that it goes on with the same.

    Raises:
        UserError: it was begun with something else.
    """
    path = entry.folder / "begun.json"
    about = plain(_about(entry, problem))
    if not path.exists():
        with writing(entry.folder):
            entry.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps(about, indent=1).encode())
        return
    before = _read(path)
    changed = sorted(_differences(before, about))
    if changed:
        what = "the data have changed" if changed == ["data"] else f"{', '.join(changed[:3])}"
        if changed != ["data"]:
            what += f" {'is' if len(changed) == 1 else 'are'} not as before"
        raise UserError(
            f"comparison {entry.name} was begun in {entry.folder}, and {what}: bring that back, or "
            "name another --output"
        )


def _about(entry: Entry, problem: Problem) -> dict[str, Any]:
    search = entry.search
    return {
        "settings": entry.config.model_dump(mode="json", exclude={"output", "engine"}),
        "seeds": entry.seeds,
        "more": vars(entry.more),
        "tune": search.trials if search else 0,
        "fedjoint": VERSION,
        "tune over": {key: repr(values) for key, values in search.over.items()} if search else {},
        "data": _data(problem),
    } | {f"the code of {name}": digest for name, digest in own_code(entry.config).items()}


def _data(problem: Problem) -> str:
    """Return what stands for the data of all clients, as the first seed splits them."""
    digest = hashlib.blake2b(digest_size=16)
    for client in range(len(problem.data.sizes)):
        digest.update(client_fingerprint(problem.data, client).encode())
    return digest.hexdigest()


def _differences(one: Any, other: Any, at: str = "") -> Iterator[str]:
    """Yield the keys of nested tables at which two differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in one.keys() | other.keys():
            place = f"{at}.{key}" if at else str(key)
            yield from _differences(one.get(key), other.get(key), place.removeprefix("settings."))
    elif one != other:
        yield at


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_bytes(path))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged; delete it, and the comparison goes on without it")
    return found
