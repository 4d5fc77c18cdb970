"""Arms of comparisons, trained in processes of Ray's, one arm each at a time."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedjoint._util.cores import allowed_cores
from fedjoint.config.schema import EngineConfig
from fedjoint.errors import UserError
from fedjoint.experiments.contestants import Contest
from fedjoint.experiments.tune import trained

News = Callable[[str], None]
Finish = Callable[[News], None]

log = logging.getLogger(__name__)


class Asked(Protocol):
    """A comparison whose runs are kept."""

    def contest(self) -> Contest:
        """Return what is compared."""
        ...


@dataclass(frozen=True)
class Job:
    """An arm of a comparison: its trials, and its seeds.

    Attributes:
        asked: the comparison; it travels to another process.
        way: the name of the way of training.
    """

    asked: Asked
    way: str

    def __call__(self) -> None:
        """Train whatever is not kept yet.

        Raises:
            UserError: nobody can be trained.
        """
        made = self.asked.contest()
        way = next(way for way in made.ways if way.name == self.way)
        trained(way, made.config, made.seeds, made.tuner, lambda name, seed: None)


Pool = Callable[[Job, str], Finish]


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

    from fedjoint.engines.ray import up
    from fedjoint.engines.ray import workers as share

    config = EngineConfig(name="ray", workers=workers)
    with up(config):
        _, gpus, _ = share(config, ray.cluster_resources())
        cores = max(1, allowed_cores() // workers)
        remote = ray.remote(_elsewhere).options(num_cpus=cores, num_gpus=gpus, max_retries=0)

        def start(job: Job, name: str) -> Finish:
            reference = remote.remote(job, Path.cwd(), sys.path)

            def finish(on_news: News) -> None:
                on_news(f"{name}, {workers} arms at a time")
                try:
                    if why := ray.get(reference):
                        log.info("%s: %s", name, why)
                except ray.exceptions.RayError as error:  # it died, and is trained here
                    log.warning("%s: a worker failed: %s", name, str(error).splitlines()[0])

            return finish

        yield start


def _elsewhere(job: Job, folder: Path, path: list[str]) -> str | None:
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
