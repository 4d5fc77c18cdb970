"""A run goes on with the model and the clients that it began with."""

from __future__ import annotations

from collections.abc import Sequence

from fedjoint.errors import UserError
from fedjoint.model.joint import JointModel
from fedjoint.model.layout import Layout
from fedjoint.runs.directory import RunDir
from fedjoint.runs.whole import Whole


def check_same_model(
    run: RunDir, whole: Whole, layout: Layout, models: Sequence[JointModel]
) -> None:
    """Make sure that a run's backbone, heads and number of clients are those of here.

    Args:
        run: the directory.
        whole: what it holds.
        layout: of all shared tensors here.
        models: of each client, what is to go on from there.

    Raises:
        UserError: a tensor has another name or shape, and the line names it; or there are more
            or fewer clients.
    """
    if run.clients not in (None, len(models)):
        raise UserError(
            f"{run.path}: the run has {run.clients} clients, and the data here {len(models)}; "
            "bring back the run's data, or start a new run"
        )
    newest = whole.newest
    if newest is None:
        return
    cure = "give the run's own problem, and leave data and model settings as they were"
    if not newest.fits(layout):
        raise UserError(f"{run.path}: its backbone is not that of the model here; {cure}")
    shapes = {
        model: {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        for model in set(models)
    }
    for client, round in zip(newest.ledger.clients, newest.ledger.rounds, strict=True):
        own = shapes[models[client]]
        (state,) = run.states.read([int(client)], [int(round)]).values()
        for name, tensor in sorted(state.items()):
            if name.startswith("heads.") and tuple(tensor.shape) != own.get(name):
                raise UserError(
                    f"{run.path}: {name!r} of client {client} is {tuple(tensor.shape)}, and "
                    f"{own.get(name, 'nothing')} in the model here; {cure}"
                )
