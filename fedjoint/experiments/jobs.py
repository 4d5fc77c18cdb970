"""Arms of comparisons, trained in processes of Ray's, one arm each at a time."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedjoint._util.cores import allowed_cores
from fedjoint.config.schema import EngineConfig
from fedjoint.errors import UserError
from fedjoint.experiments.contestants import Contest
from fedjoint.experiments.tune import trained

News = Callable[[str], None]
Finish = Callable[[News], None]

log = logging.getLogger(__name__)


class Contested(Protocol):
    """A comparison whose runs are kept."""

    def contest(self) -> Contest:
        """Return what is compared."""
        ...


@dataclass(frozen=True)
class Training:
    """An arm of a comparison: its trials, and its seeds.

    Attributes:
        asked: the comparison; it travels to another process.
        way: the name of the way of training.
    """

    asked: Contested
    way: str

    def __call__(self) -> None:
        """Train whatever is not kept yet.

        Raises:
            UserError: nobody can be trained.
        """
        made = self.asked.contest()
        way = next(way for way in made.ways if way.name == self.way)
        trained(way, made.config, made.seeds, made.tuner, lambda name, seed: None)


Pool = Callable[[Training, str], Finish]


@contextmanager
def in_parallel(workers: int, jobs: int) -> Iterator[Pool]:
    """Yield what starts a job and returns what waits for it.

    A job that fails elsewhere fails again, with its reason, where the comparison needs its runs.

    Args:
        workers: processes; 0: as many as there are cores. With one, or one job, nothing is started:
            the comparison trains its runs itself.
        jobs: how many there will be.
    """
    workers = min(workers or allowed_cores(), jobs)
    if workers < 2:
        yield lambda job, name: lambda on_news: None
        return
    import ray

    from fedjoint.engines.processes import up
    from fedjoint.engines.ray import workers as share

    config = EngineConfig(name="ray", workers=workers)
    with up(config):
        _, gpus, _ = share(config, ray.cluster_resources())
        remote = ray.remote(_elsewhere).options(num_cpus=0, num_gpus=gpus, max_retries=0)
        line = _Line(lambda job: remote.remote(job, Path.cwd(), sys.path), workers)

        def start(job: Training, name: str) -> Finish:
            number = line.add(job)

            def finish(on_news: News) -> None:
                on_news(f"{name}, {workers} arms at a time")
                try:
                    if why := ray.get(line.wait(number)):
                        log.info("%s: %s", name, why)
                except ray.exceptions.RayError as error:  # it died, and is trained here
                    log.warning("%s: a worker failed: %s", name, str(error).splitlines()[0])

            return finish

        yield start


class _Line:
    """Has so many at work at a time: the next one starts as one ends.

    Args:
        start: starts one in a process of Ray's, and returns the reference to its result.
        most: at a time.
    """

    def __init__(self, start: Callable[[Training], Any], most: int) -> None:
        self._start, self._most, self._count = start, most, 0
        self._waiting: deque[tuple[int, Training]] = deque()
        self._at_work: dict[Any, int] = {}
        self._ended: dict[int, Any] = {}

    def add(self, job: Training) -> int:
        """Put one at the end of the line; return its number."""
        self._waiting.append((self._count, job))
        self._count += 1
        self._fill()
        return self._count - 1

    def wait(self, number: int) -> Any:
        """Return the reference to the result of one, which has ended."""
        import ray

        while number not in self._ended:
            (ended,), _ = ray.wait(list(self._at_work), num_returns=1)
            self._ended[self._at_work.pop(ended)] = ended
            self._fill()
        return self._ended.pop(number)

    def _fill(self) -> None:
        while self._waiting and len(self._at_work) < self._most:
            number, job = self._waiting.popleft()
            self._at_work[self._start(job)] = number


def _elsewhere(job: Training, folder: Path, path: list[str]) -> str | None:
    """Do a job in a process of Ray's; return why it cannot be done."""
    import torch

    os.chdir(folder)
    sys.path[:] = path
    torch.set_num_threads(1)
    logging.getLogger("fedjoint").setLevel(logging.ERROR)
    try:
        job()
    except UserError as error:
        return str(error)
    return None
