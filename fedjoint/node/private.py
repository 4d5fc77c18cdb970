"""What clients keep to themselves between rounds, in a worker's memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.node.store import StateStore
from fedjoint.runs.ledger import Ledger

Fresh = Callable[[], Mapping[str, Tensor]]

#: Rows of a result, and the stacked tensors that belong there.
Part = tuple[list[int], Mapping[str, Tensor]]


@dataclass(eq=False)
class _Version:
    """The state of a group's clients after some round.

    Attributes:
        rounds: ``[clients]`` int64, the round after which a row is the client's state; -1 where
            the row means nothing.
        tensors: name -> ``[clients, ...]``.
        dirty: not in the store yet.
    """

    rounds: np.ndarray
    tensors: dict[str, Tensor]
    dirty: bool

    def at(self, rows: Sequence[int]) -> _Version:
        """Return some of the rows."""
        own = list(rows)
        return _Version(self.rounds[own], {n: t[own] for n, t in self.tensors.items()}, self.dirty)


@dataclass(eq=False)
class _Group:
    """Clients that were put together, some of which may since have been put elsewhere.

    Attributes:
        clients: ids, one per row.
        versions: their state after the newest round, and before it the one to go back to.
        size: how many were put.
        alive: how many are still here.
    """

    clients: list[int]
    versions: list[_Version]
    size: int
    alive: int

    @property
    def whole(self) -> bool:
        return self.alive == self.size

    def version(self, rounds: np.ndarray) -> _Version | None:
        """Return the version that is the state after ``rounds`` ``[clients]``, if there is one."""
        return next((v for v in self.versions if np.array_equal(v.rounds, rounds)), None)


class PrivateState:
    """One worker's clients' private state, in memory, over an optional store.

    Tensors are kept as they are put: stacked over the clients of a job, on the job's device. Two
    versions of a client are kept, of the round that counted when it trained and of the round in
    which it trained, until the server says which of them counts.

    Args:
        store: where state goes that is not kept; None: all of it is kept.
        resident: most clients kept; beyond it, the least recently used go to the store.
        device: where new stacks are made.
    """

    def __init__(
        self, store: StateStore | None, resident: int, device: torch.device | str = "cpu"
    ) -> None:
        self._store, self._resident, self._device = store, resident, torch.device(device)
        self._groups: OrderedDict[bytes, _Group] = OrderedDict()  # the least recently used first
        self._places: dict[int, tuple[_Group, int]] = {}

    def take(self, clients: np.ndarray, counts: np.ndarray, fresh: Fresh) -> dict[str, Tensor]:
        """Return name -> ``[clients, ...]``, the state that counts.

        The tensors are the caller's to change in place, and to :meth:`put` once its job is done;
        until then the state kept here is the old one, whatever becomes of the job.

        Args:
            clients: ``[clients]`` ids, all with the same names and shapes of state.
            counts: ``[clients]`` int64, the round after which a client's state counts; 0: none.
            fresh: makes the state of one client of which no round counts.

        Raises:
            UserError: the state that counts is missing or damaged, or does not fit that of the
                other clients.
        """
        ids, counts = np.asarray(clients, np.int64), np.asarray(counts, np.int64)
        group = self._groups.get(ids.tobytes())
        if group is not None and group.whole and (version := group.version(counts)):
            group.versions = [version]  # the server has decided
            self._groups.move_to_end(ids.tobytes())
            return {name: tensor.clone() for name, tensor in version.tensors.items()}
        return self._stack(ids.tolist(), counts.tolist(), fresh)

    def put(
        self, clients: np.ndarray, counts: np.ndarray, round: int, stacked: Mapping[str, Tensor]
    ) -> None:
        """Keep ``stacked`` (name -> ``[clients, ...]``) as the state after ``round``.

        The tensors are kept without a copy: from now on, change them only after a ``take``.

        Args:
            clients: ``[clients]`` ids.
            counts: as for the ``take`` before; that state stays beside the new one.
            round: the round.
            stacked: the state.
        """
        ids, counts = np.asarray(clients, np.int64), np.asarray(counts, np.int64)
        key = ids.tobytes()
        new = _Version(np.full(len(ids), round), dict(stacked), True)
        group = self._groups.get(key)
        before = group.version(counts) if group is not None and group.whole else None
        if group is not None and before is not None:
            group.versions = [before, new]
            self._groups.move_to_end(key)
        else:
            own: list[int] = ids.tolist()
            old = self._kept(own, counts.tolist())
            self.forget(own)
            group = _Group(own, [*old, new], len(own), len(own))
            self._groups[key] = group
            self._places |= {client: (group, row) for row, client in enumerate(own)}
        self._evict()

    def settle(self, ledger: Ledger) -> None:
        """Drop the state of rounds that do not count, or no longer."""
        for group in list(self._groups.values()):
            counts = ledger.of(np.array(group.clients, np.int64))
            for version in group.versions:
                version.rounds = np.where(version.rounds == counts, counts, -1)
            group.versions = [v for v in group.versions if (v.rounds > 0).any()]
            if not group.versions:
                self.forget(self._members(group))

    def flush(self) -> None:
        """Write what the store does not have, as of the round in which it was put."""
        if self._store is not None:
            self._write(self._store, list(self._groups.values()))

    def forget(self, clients: Sequence[int] | np.ndarray | None = None) -> None:
        """Drop ``clients`` (default: all) from memory, and their unwritten state with them."""
        if clients is None:
            self._groups.clear()
            self._places.clear()
            return
        left = set()
        for client in clients:
            place = self._places.pop(int(client), None)
            if place is not None:
                place[0].alive -= 1
                left.add(place[0])
        if left:
            self._groups = OrderedDict((k, g) for k, g in self._groups.items() if g.alive)
        for group in left:
            # So the memory in use is at most twice that of the clients kept.
            if 0 < group.alive < len(group.clients) / 2:
                self._compact(group)

    def _stack(self, ids: list[int], counts: list[int], fresh: Fresh) -> dict[str, Tensor]:
        """Collect the state of ``ids`` that counts from memory, the store and ``fresh``."""
        parts, absent = self._find(ids, counts)
        read = [row for row in absent if counts[row]]
        stored: dict[int, dict[str, Tensor]] = {}
        if self._store is not None and read:
            stored = self._store.read([ids[row] for row in read], [counts[row] for row in read])
        for row in read:
            if ids[row] not in stored:
                raise UserError(
                    f"the state of client {ids[row]} after round {counts[row]} is not here: give "
                    "this machine the files that the run left, or start a new run"
                )
            parts.append(([row], {n: t[None] for n, t in stored[ids[row]].items()}))
        new = [row for row in absent if not counts[row]]
        if new or not ids:
            state = fresh()
            parts.append((new, {n: t.expand(len(new), *t.shape) for n, t in state.items()}))
        return self._join(ids, parts)

    def _find(self, ids: list[int], counts: list[int]) -> tuple[list[Part], list[int]]:
        """Return what memory holds of the state that counts, and the rows that it lacks."""
        kept: dict[_Version, tuple[list[int], list[int]]] = {}
        absent = []
        for row, (client, count) in enumerate(zip(ids, counts, strict=True)):
            group, at = self._places.get(client, (None, -1))
            versions = group.versions if group is not None and count else ()
            version = next((v for v in versions if v.rounds[at] == count), None)
            if version is None:
                absent.append(row)
                continue
            rows, places = kept.setdefault(version, ([], []))
            rows.append(row)
            places.append(at)
        return [(rows, version.at(at).tensors) for version, (rows, at) in kept.items()], absent

    def _kept(self, ids: list[int], counts: list[int]) -> list[_Version]:
        """Return what memory holds of the state that counts, as a version of the group ``ids``."""
        parts, absent = self._find(ids, counts)
        if not parts:
            return []
        rounds = np.array(counts, np.int64)
        rounds[absent] = -1
        like = {name: t[:1] for name, t in parts[0][1].items()}
        filler = {name: t.expand(len(absent), *t.shape[1:]) for name, t in like.items()}
        return [_Version(rounds, self._join(ids, [*parts, (absent, filler)]), True)]

    def _join(self, ids: list[int], parts: Sequence[Part]) -> dict[str, Tensor]:
        """Stack ``parts``, each some rows of the result, on the device."""
        shapes = {name: t.shape[1:] for name, t in parts[0][1].items()}
        for rows, part in parts:
            if {name: t.shape[1:] for name, t in part.items()} != shapes:
                raise UserError(
                    f"the private state of client {ids[rows[0]]} does not fit that of client "
                    f"{ids[parts[0][0][0]]}; resume with the run's own configuration"
                )
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        index = torch.from_numpy(order).to(self._device)
        return {
            name: torch.cat([part[name].to(self._device) for _, part in parts])[index]
            for name in sorted(shapes)  # as each store reads them, their order is another
        }

    def _compact(self, group: _Group) -> None:
        rows = [
            row
            for row, client in enumerate(group.clients)
            if self._places.get(client, (None,))[0] is group
        ]
        group.clients = [group.clients[row] for row in rows]
        group.versions = [version.at(rows) for version in group.versions]
        self._places |= {client: (group, row) for row, client in enumerate(group.clients)}

    def _evict(self) -> None:
        if self._store is None:
            return
        leaving, kept = [], len(self._places)
        for group in self._groups.values():
            if kept <= self._resident:
                break
            leaving.append(group)
            kept -= group.alive
        if leaving:
            self._write(self._store, leaving)
            self.forget([client for group in leaving for client in self._members(group)])

    def _members(self, group: _Group) -> list[int]:
        return [c for c in group.clients if self._places.get(c, (None,))[0] is group]

    def _write(self, store: StateStore, groups: Sequence[_Group]) -> None:
        states: dict[int, dict[int, dict[str, Tensor]]] = {}
        dirty = [(group, v) for group in groups for v in group.versions if v.dirty]
        for group, version in dirty:
            rows = {name: t.cpu().unbind() for name, t in version.tensors.items()}
            for client in self._members(group):
                row = self._places[client][1]
                if (round := int(version.rounds[row])) > 0:
                    own = {name: t[row] for name, t in rows.items()}
                    states.setdefault(round, {})[client] = own
        for round, of_round in states.items():
            store.write(round, of_round)
        for _, version in dirty:
            version.dirty = False
