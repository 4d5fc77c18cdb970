"""How the updates of the tasks of a run agree, over all of its rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fedjoint.runs.record import RoundRecord


def mean_cosines(records: Iterable[RoundRecord], tasks: Sequence[str]) -> np.ndarray:
    """Return ``[tasks, tasks]`` float64, the mean over rounds of the cosine of mean updates.

    It is what records have under ``diagnostics``, see
    :func:`fedjoint.server.agreement.diagnose`. NaN where no round tells the cosine of a pair, as
    of tasks of the very same clients that send one update for both.

    Args:
        records: of a joint run.
        tasks: names of tasks, the order of rows and columns.
    """
    place = {name: at for at, name in enumerate(tasks)}
    total, rounds = (np.zeros((len(tasks), len(tasks))) for _ in range(2))
    for record in records:
        told = (record.diagnostics or {}).get("tasks") or {"ids": [], "cosine": []}
        rows = [place[name] for name in told["ids"]]
        found = np.array(told["cosine"], float).reshape(len(rows), len(rows))  # None: NaN
        total[np.ix_(rows, rows)] += np.nan_to_num(found)
        rounds[np.ix_(rows, rows)] += ~np.isnan(found)
    return np.divide(total, rounds, out=np.full_like(total, np.nan), where=rounds > 0)
