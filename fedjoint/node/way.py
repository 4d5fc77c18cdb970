"""How the clients of a deployed node train: tried once a run, and kept beside their state."""

from __future__ import annotations

import logging

import torch

from fedjoint._util.logs import event
from fedjoint.config.schema import Config
from fedjoint.node.node import best_device
from fedjoint.node.store import StateStore
from fedjoint.problem import Problem
from fedjoint.training.choice import choose_path

log = logging.getLogger("fedjoint.node")

#: The server waits for two minutes to hear who lives here.
_SECONDS = 30.0


def with_path(problem: Problem, config: Config, store: StateStore) -> Config:
    """Return ``config`` with ``local.path`` as this node's machine is fastest, where that is open.

    Args:
        problem: of the node.
        config: the run's, as it is on the node.
        store: of the node, which knows the path once it was chosen.
    """
    if config.local.path != "auto":
        return config
    path = store.chosen
    if path is None:
        path = _chosen(problem, config)
        store.note_chosen(path)
    return config.model_copy(update={"local": config.local.model_copy(update={"path": path})})


def _chosen(problem: Problem, config: Config) -> str:
    # Groups of clients have models of their own, which one choice need not fit.
    model = problem.models(config).get("")
    threads = config.engine.threads or torch.get_num_threads()
    engine = config.engine.model_copy(update={"threads": threads})
    tried = config.model_copy(update={"engine": engine})
    device = best_device()
    choice = choose_path(problem, model, tried, device, seconds=_SECONDS) if model else None
    if choice is None:
        return "auto"
    text = f"local.path = {choice.path}: {choice.why}"
    event(log, logging.INFO, "path", text, path=choice.path)
    return choice.path
