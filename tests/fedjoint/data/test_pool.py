import numpy as np
from support.building import build_data

from fedjoint.config.data import DataConfig
from fedjoint.data.dataset import is_known
from fedjoint.data.pool import pooled


def test_pooling_keeps_every_label_and_no_other():
    tasks, federation, _ = build_data(DataConfig(clients=12), seed=0)
    everyone = pooled(federation, tasks)
    assert everyone.tasks.tolist() == [[True] * 5] and everyone.task_names == federation.task_names
    clients = [federation.client(i) for i in range(12)]
    for name in ("train", "valid", "test"):
        pool = getattr(everyone.client(0), name)
        parts = [getattr(client, name) for client in clients]
        assert len(pool) == sum(len(part) for part in parts)
        starts = np.cumsum([0, *(len(part) for part in parts)])
        for part, start in zip(parts, starts, strict=False):
            assert pool.x[start : start + len(part)].equal(part.x)
            for task in federation.task_names:
                own = pool.y[task][start : start + len(part)]
                assert own.equal(part.y[task]) if task in part.y else not is_known(own).any()
    assert everyone.sizes.tolist() == [len(everyone.client(0).train)]
