"""What a configuration asks for, before anybody takes memory for it."""

from __future__ import annotations

from fedjoint._util.memory import check_fits
from fedjoint.config.schema import Config

_CLIENT = 100  # bytes that the least of clients takes: id, size, tasks, block, its part of the data
_PLACES = 24  # bytes of an example's place in a minibatch: where it is, as it is drawn and sorted
_EXAMPLES = 46  # of a client, where nobody says
_WORKER = 2e8  # bytes of a process with PyTorch in it


def check_sizes(config: Config) -> None:
    """Refuse numbers of clients, examples, steps or workers that no memory here holds.

    Estimates are low: what passes may still be too much, once data and model are known.

    Raises:
        UserError: one does not fit.
    """
    data, local = config.data, config.local
    if config.engine.address is None:  # else they are on other machines, too
        what = f"engine.workers = {config.engine.workers}"
        check_fits(what, _WORKER * float(config.engine.workers), "ask for fewer")
    if data.partition != "natural":
        what = f"data.clients = {data.clients}"
        check_fits(what, _CLIENT * float(data.clients), "ask for fewer")
    if data.examples_per_client is not None:
        what = f"data.examples_per_client = {data.examples_per_client}"
        check_fits(what, _PLACES * float(data.examples_per_client), "ask for fewer")
    if local.steps is not None:
        batch = min(local.batch_size, data.examples_per_client or _EXAMPLES)
        what = f"local.steps = {local.steps} with local.batch_size = {local.batch_size}"
        check_fits(what, _PLACES * float(local.steps) * batch, "lower either")
