"""Where a run has several backbones: which of them one model of several clients has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fedjoint.errors import UserError
from fedjoint.exports.personal import PersonalModels


def with_one_backbone(
    people: PersonalModels, task: str, holders: Sequence[int], backbone: int | None
) -> tuple[list[int], str]:
    """Return the clients that have one backbone, and what to call that.

    Args:
        people: the clients' models.
        task: a task.
        holders: ids of the clients with the task, of one architecture.
        backbone: its number, from 0; None: that of most of them, of equals the first.

    Raises:
        UserError: there is no such backbone, or no client with the task has it.
    """
    count = people.backbones(people.group(holders[0]))
    if backbone is not None and not 0 <= backbone < count:
        raise UserError(
            f"--backbone {backbone}: the run has {count}, from 0 to {count - 1}"
            if count > 1
            else "the run has one backbone: leave --backbone out"
        )
    if count == 1:
        return list(holders), "the shared backbone"
    had = {client: people.model(client, task).backbone for client in holders}
    sizes = Counter(had.values())
    chosen = max(sorted(sizes), key=sizes.__getitem__) if backbone is None else backbone
    own = [client for client in holders if had[client] == chosen]
    if not own:
        found = ", ".join(map(str, sorted(sizes)))
        raise UserError(f"no client with {task!r} has backbone {chosen}; they have {found}")
    return own, f"backbone {chosen} of {count}, that of {len(own)} of {len(holders)} clients,"
