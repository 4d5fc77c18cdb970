"""Clients whose tasks are equal or opposed: the first two and the next two are of one camp each."""

import numpy as np

from fedjoint.config.scenario import scenario_config
from fedjoint.data.sources import synthetic

_SIGNS = np.array([[1.0], [1.0], [-1.0], [-1.0]])


def camps(tmp_path, monkeypatch, tasks, *more):
    """Return a scenario of so many tasks of these camps, few examples to train on, many to test."""
    plain = synthetic.directions
    monkeypatch.setattr(
        synthetic, "directions", lambda source, seed: _SIGNS[:tasks] * plain(source, seed)[:1]
    )
    settings = ["engine.name=inline", f"output.dir={tmp_path}", "evaluate.train=false"]
    settings += ["rounds=4", "evaluate.every=4", f"data.clients={2 * tasks}", "data.task_mix=[]"]
    settings += ["data.examples_per_client=26", "data.test_fraction=0.5"]
    settings += ["data.source.options.noise=0.5", f"data.source.options.tasks={tasks}"]
    return scenario_config("conflict", [*settings, *more])
