"""Whether an example passes the model again while what was kept of it is still there."""

from __future__ import annotations

import numpy as np

from fedjoint.config.schema import Config


def comes_again(sizes: np.ndarray, each: int, config: Config) -> bool:
    """Return whether it does: in a later round, or, where rounds are too far apart, in the same.

    Args:
        sizes: ``[clients]`` training examples.
        each: bytes that are kept of an example.
        config: the run's; a worker keeps ``engine.data_mb``.
    """
    local, examples = config.local, int(sizes.sum())
    of_a_client = examples / max(1, int(np.count_nonzero(sizes)))
    in_a_round = local.epochs or (local.steps or 1) * local.batch_size / max(1.0, of_a_client)
    return each * examples <= config.engine.data_mb << 20 or in_a_round >= 2
