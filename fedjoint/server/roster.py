"""Who there is: the nodes of a run, the clients that live there, and who trains what."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fedjoint._util.logs import event
from fedjoint._util.wording import plain
from fedjoint.config.schema import Config
from fedjoint.data.reading import listed
from fedjoint.errors import UserError
from fedjoint.model.frozen import digest
from fedjoint.model.groups import naming
from fedjoint.model.layout import Layout
from fedjoint.model.parts import Parts, own_key
from fedjoint.model.tasks import Task
from fedjoint.protocol.arrays import to_tensor
from fedjoint.protocol.description import Architecture, Description
from fedjoint.protocol.requests import QUERY, TELL, Asked, Header, QueryRequest, TellRequest
from fedjoint.server.badges import Badges, check_badge
from fedjoint.server.first import alike, first_backbone
from fedjoint.server.plausible import check_plausible
from fedjoint.server.population import Population, assign, blocks_on_gpus, makespan
from fedjoint.server.tasks import KnownTasks

log = logging.getLogger("fedjoint.server.roster")

#: A node, and the group of those of its clients that a message is about.
Seat = tuple[int, str]

_START = 86_400.0  # seconds that a simulated node has to load its data and try its clients
_QUERY = 120.0  # seconds that a deployed node has to say who it is
_TELL = 600.0  # seconds that a node has to hear why it is left out
_PATIENCE = 10.0  # how many times as long as it took, until it is asked again


class Roster:
    """The nodes and clients of a run, as the nodes describe them.

    Args:
        config: the run's configuration.
        tasks: tasks with losses or metrics of their own; the others are what the nodes say.
        wait: seconds to wait for ``engine.min_nodes`` nodes.
        deployed: whether nodes have data of their own.
        badges: what belongs to the nodes' keys; None: nodes have none.

    Attributes:
        nodes: number -> what the node said of itself, of those here.
        people: their clients.
        tasks: all tasks of theirs.
        known: what the server knows of tasks itself.
        groups: name -> what the clients of a group train; new ones come until the run begins.
        parts: the shared tensors of all groups, from then on.
        initial: the first backbone, by name; what groups have in common is that of the first.
        frozen: what does not train of it, by name.
        digest: of that.
        placed: block of clients -> node.
        costs: block -> measured seconds.
        seen: node -> when it was last heard of, seconds since 1970.
        mixed: whether clients of several sets of tasks may train in one job.
    """

    def __init__(
        self,
        config: Config,
        tasks: tuple[Task, ...] | None,
        wait: float,
        deployed: bool = False,
        badges: Badges | None = None,
    ) -> None:
        self.badges, self.mixed = badges, False
        self.config, self.wait = config, wait
        self.known = KnownTasks(config, tasks or ())
        self.deployed, self.told = deployed, -1
        self.nodes: dict[int, Description] = {}
        self.left: dict[int, Description] = {}
        self.later: dict[int, float] = {}
        self.dismissed: set[int] = set()
        self.refused: dict[int, str] = {}
        self.tasks: tuple[Task, ...] = ()
        self.groups: dict[str, Architecture] = {}
        self.parts = Parts({})
        self.initial: dict[str, np.ndarray] = {}
        self.frozen: dict[str, np.ndarray] = {}
        self.digest = ""
        self._begun = False
        nobody = np.zeros(0, np.int64)
        self.people = Population(nobody, nobody, np.zeros((0, 0), bool), nobody)
        self.placed: dict[int, int] = {}
        self.costs: dict[int, float] = {}
        self.seen: dict[int, float] = {}

    def discover(self, grid: Grid, header: Header) -> None:
        """Ask new nodes who lives there; forget those that are gone; wait while they are too few.

        Args:
            grid: reaches the nodes.
            header: of the request that asks.

        Raises:
            UserError: too few nodes came in time, or those that came cannot take part.
        """
        least, end = self.config.engine.min_nodes, time.monotonic() + self.wait
        while True:
            present = set(grid.get_node_ids())
            self._meet(grid, present, header)
            if len(self.nodes) >= least and not self._begun:
                self._begin()
            if len(self.nodes) >= least:
                return
            hopeless = not len(self.people.ids) and len(present) >= least
            if hopeless or time.monotonic() >= end:
                why = set(self.refused.values())
                if not self.deployed and not self.nodes and len(why) == 1:
                    raise UserError(why.pop())  # not the node's own fault, but the run's
                reasons = "; ".join(f"node {n}: {why}" for n, why in self.refused.items())
                raise UserError(
                    f"{len(self.nodes)} of {len(present)} nodes can take part, "
                    f"engine.min_nodes is {least}: {reasons or 'no other node came'}"
                )
            if len(self.nodes) != self.told:  # not every second
                self.told = len(self.nodes)
                text = f"waiting for nodes: {self.told} of {least} are here"
                event(log, logging.INFO, "waiting", text, here=self.told, wanted=least)
            time.sleep(1.0)

    def _begin(self) -> None:
        """Decide what the first backbones are, once enough nodes have said what theirs are.

        From here on there is no other group: what it starts from would be nowhere.

        Raises:
            UserError: nobody can tell, or ``model.common`` does not fit the groups.
        """
        self._begun = True
        known = {name for about in self.nodes.values() for name in about.groups}
        self.groups = {n: self._first(n, g) for n, g in sorted(self.groups.items()) if n in known}
        if self.nodes:
            self._know()
        layouts = {name: group.layout for name, group in self.groups.items()}
        self.parts = Parts(layouts, self.config.model.common)
        for name, group in self.groups.items():
            for tensor, values in group.initial.items():
                self.initial.setdefault(self.parts.key(name, tensor), values)
            self.frozen |= {own_key(name, tensor): v for tensor, v in group.frozen.items()}
        self.digest = digest({name: to_tensor(array) for name, array in self.frozen.items()})
        # It is not needed any more, and may be large.
        self.groups = {name: _bare(group) for name, group in self.groups.items()}
        for node, about in self.nodes.items():
            bare = {name: _bare(group) for name, group in about.groups.items()}
            self.nodes[node] = replace(about, groups=bare)

    def _first(self, name: str, group: Architecture) -> Architecture:
        """Return a group with its first backbone, and dismiss the nodes that name another."""
        own = {n: about.groups[name] for n, about in self.nodes.items() if name in about.groups}
        first = own[min(own)]
        if not self.deployed:
            return replace(group, initial=first.initial, frozen=first.frozen)
        initial = first_backbone(self.config, name, own, self.name)
        for node in [n for n, other in own.items() if not alike(other.initial, initial)]:
            why = "its first backbone is not what the run's seed gives"
            self._refuse(node, why, time.monotonic())
            del self.nodes[node]
            self.dismissed.add(node)
        return replace(group, initial=initial, frozen=first.frozen)

    @property
    def layout(self) -> Layout:
        """The layout of all shared tensors."""
        return self.parts.layout

    def _meet(self, grid: Grid, present: set[int], header: Header) -> None:
        gone = [node for node in self.nodes if node not in present]
        for node in gone:
            text = f"node {self.nodes[node].name} ({node}) is gone"
            event(log, logging.WARNING, "gone", text, node=str(node), name=self.nodes[node].name)
            self.left[node] = self.nodes.pop(node)
        # Those refused before are asked again, as they may have fixed, but no round waits long
        # for them; one that was away has started anew.
        self.later = {node: due for node, due in self.later.items() if node in present}
        new = present - set(self.nodes) - self.dismissed
        if len(self.nodes) >= self.config.engine.min_nodes:
            new = {node for node in new if self.later.get(node, 0.0) <= time.monotonic()}
        if not new and not gone:
            return
        self._ask(grid, sorted(new), header)
        if self.nodes:
            self._know()

    def _ask(self, grid: Grid, new: list[int], header: Header) -> None:
        # A simulated node may take long to load data; if it dies, its error is the answer.
        limit = _QUERY if self.deployed else _START
        initial = not self._begun
        content = QueryRequest(header, initial=initial).pack()
        asked = [Message(content, node, QUERY, ttl=limit) for node in new]
        began, silent, found = time.monotonic(), set(new), {}
        for reply in grid.send_and_receive(asked, timeout=limit):
            node = reply.metadata.src_node_id
            silent.discard(node)
            try:
                about = Description.unpack(reply, initial=initial)
                if self.badges:
                    check_badge(about, self.badges(node))
                found[node] = about
            except UserError as error:
                self._refuse(node, str(error), began)
            except Exception as error:  # whatever a forged reply may provoke
                self._refuse(node, f"damaged message: {type(error).__name__}: {error}", began)
        for node in silent:
            self._refuse(node, f"no answer within {limit:g} s", began)
        if not self._begun:
            self._choose([found[node] for node in sorted(found)])
        unfit = {}
        for node in sorted(found):
            others = {n: a for n, a in {**found, **self.nodes}.items() if n != node}
            try:
                self._admit(node, found[node], list(others.values()))
            except UserError as error:
                if self.refused.get(node) != plain(error):
                    unfit[node] = plain(error)
                self._refuse(node, str(error), began)
        if self.deployed and unfit:
            self._tell(grid, unfit, header)

    def _tell(self, grid: Grid, unfit: Mapping[int, str], header: Header) -> None:
        """Tell nodes why the run leaves them out: what they send themselves, they know."""
        grid.push_messages(
            Message(TellRequest(header, why).pack(), node, TELL, ttl=_TELL)
            for node, why in unfit.items()
        )

    def _choose(self, found: list[Description]) -> None:
        """Take what most of the nodes found say of every group that is new."""
        for name in sorted({name for about in found for name in about.groups} - self.groups.keys()):
            # Not whoever is first: one node that is wrong must not keep the others out.
            own = [about.groups[name] for about in found if name in about.groups]
            chosen = Counter(_kind(group) for group in own).most_common(1)[0][0]
            self.groups[name] = next(group for group in own if _kind(group) == chosen)

    def _refuse(self, node: int, why: str, began: float) -> None:
        why, now = plain(why), time.monotonic()
        if self.refused.get(node) != why:
            text = f"node {node} refused: {why}"
            event(log, logging.ERROR, "refused", text, node=str(node), reason=why)
        self.refused[node] = why
        self.later[node] = now + _PATIENCE * (now - began)

    def _admit(self, node: int, about: Description, others: list[Description]) -> None:
        if self.deployed:
            about = replace(about, movable=False)  # data of its own never moves
        usual = next(iter(self.nodes.values()), None)
        if usual and about.columns and usual.columns and about.columns != usual.columns:
            raise UserError(_other_inputs(about.columns, usual.columns))
        for name, group in about.groups.items():
            self._check_group(name, group)
        if self.deployed:
            check_plausible(about, others)
        known = {task.name: task for node in self.nodes.values() for task in node.tasks}
        for task in about.tasks:
            if (other := known.get(task.name, task)) != task:
                raise UserError(
                    f"task {task.name!r} is {_form(task)} there, {_form(other)} elsewhere"
                )
            if task.name in about.metrics:
                self.known.check(task, about.metrics[task.name])
        for node_here in self.nodes.values():
            self._check_classes(about, node_here)
        self._replace(node, about)
        self.nodes[node] = about
        self.seen[node] = time.time()
        self.refused.pop(node, None)
        self.left = {n: a for n, a in self.left.items() if n != node and a.name != about.name}
        text = f"node {about.name} ({node}): {len(about.ids)} clients, device {about.device}"
        details = {"node": str(node), "name": about.name, "clients": len(about.ids)}
        event(log, logging.INFO, "joined", text, **details, device=about.device)

    def _check_classes(self, about: Description, other: Description) -> None:
        """Refuse a node that numbers the classes of a task by other names than another one.

        Raises:
            UserError: it does.
        """
        common = {task.name for task in about.tasks} & {task.name for task in other.tasks}
        for task in sorted(common):
            if about.classes.get(task) != other.classes.get(task):
                raise UserError(
                    f"its classes of task {task!r} are others than those on node {other.name}: "
                    "as no node knows all, write them as whole numbers from 0 everywhere, and set "
                    f"data.outputs.{task}"
                )

    def _check_group(self, name: str, group: Architecture) -> None:
        usual = self.groups.get(name)
        if usual is None:
            raise UserError(
                f"its clients are of group {name!r}, of which nobody was here as the run began: "
                "raise engine.min_nodes, and start a new run"
            )
        with naming(name):
            if _order(group.layout) != _order(usual.layout):
                raise UserError(_difference(group.layout, usual.layout))
            if group.digest != usual.digest:
                raise UserError(
                    "its frozen weights differ from the other nodes': give all the same file, such "
                    "as by model.initial"
                )

    def _replace(self, node: int, about: Description) -> None:
        """Forget the node that ``about`` is, if it was here under another number before."""
        if about.movable:
            return
        before = []
        for other, known in self.nodes.items():
            shared = np.intersect1d(known.ids, about.ids)
            if not len(shared):
                continue
            if known.name != about.name:
                raise UserError(
                    f"client {shared[0]} lives on node {known.name} already: give every "
                    "client one id"
                )
            before.append(other)
        for other in before:
            text = f"node {about.name} ({other}) is back as {node}"
            event(log, logging.WARNING, "back", text, node=str(node), name=about.name)
            self.dismissed.add(other)
            del self.nodes[other]

    def name(self, node: int) -> str:
        """Return what people call a node, or its number where that is not known."""
        about = self.nodes.get(node) or self.left.get(node)
        return about.name if about and about.name else str(node)

    def _know(self) -> None:
        """Rebuild the population from what the nodes said."""
        movable = [n for n in self.nodes.values() if n.movable]
        hosts = movable[:1] or [self.nodes[n] for n in sorted(self.nodes)]
        names: list[str] = []
        for about in hosts:
            names += [task.name for task in about.tasks if task.name not in names]
        kinds = {task.name: task for about in hosts for task in about.tasks}
        self.tasks = tuple(self.known.of(kinds[name]) for name in names)
        order_of = {name: place for place, name in enumerate(sorted(self.groups))}
        ids, sizes, tasks, home, held, group = [], [], [], [], [], []
        for number, about in enumerate(self.nodes.values()):
            if not any(about is host for host in hosts):
                continue
            mask = np.zeros((len(about.ids), len(names)), bool)
            mask[:, [names.index(task.name) for task in about.tasks]] = about.mask
            ids.append(about.ids)
            sizes.append(about.sizes)
            tasks.append(mask)
            if not movable:
                none = np.zeros((len(about.ids), 3), np.int64)
                held.append(about.held if len(about.held) else none)
            home.append(np.full(len(about.ids), -1 if movable else number))
            group.append(np.array([order_of[name] for name in about.groups])[about.member])
        everyone = np.concatenate(ids)
        order = np.argsort(everyone, kind="stable")
        self.people = Population(
            everyone[order],
            np.concatenate(sizes)[order],
            np.concatenate(tasks)[order],
            np.concatenate(home)[order],
            self.config.engine.blocks or self._blocks(len(everyone), movable=bool(movable)),
            None if movable else np.concatenate(held)[order],
            np.concatenate(group)[order],
            max(1, self.config.local.pack),
            self.mixed,
        )
        self.costs = {}  # the blocks are others now
        self.place()

    def _blocks(self, clients: int, *, movable: bool) -> int:
        """Return how many blocks of clients there are to be; 0: as many as suit CPUs."""
        nodes = self.nodes.values()
        if movable and all(node.device.startswith("cuda") for node in nodes):
            return blocks_on_gpus(clients, len(nodes))
        return 0

    def place(self) -> None:
        """Give every bundle a node, by measured costs where any node can train any."""
        p = self.people
        loads = np.bincount(p.block, p.sizes)
        rate = sum(self.costs.values()) / max(1.0, float(sum(loads[b] for b in self.costs)))
        costs = {b: self.costs.get(b, (rate or 1.0) * float(loads[b])) for b in range(len(loads))}
        if (p.home < 0).all():
            whole = np.bincount(p.bundle, list(costs.values())).tolist()
            homes = assign(dict(enumerate(whole)), list(self.nodes))
            new = {block: homes[p.bundle[block]] for block in costs}
            nodes = set(self.nodes)
            stays = self.placed.keys() == new.keys() and nodes.issuperset(self.placed.values())
            # Moving a block costs its data and heads a new home: it has to pay.
            if not stays or makespan(costs, new) < 0.9 * makespan(costs, self.placed):
                self.placed = new
        else:
            first, hosts = np.unique(p.block, return_index=True)[1], list(self.nodes)
            self.placed = {int(p.block[i]): hosts[p.home[i]] for i in first}

    @property
    def names(self) -> dict[int, str]:
        """Place of a node in ``people.home`` -> its name."""
        return {place: about.name for place, about in enumerate(self.nodes.values())}

    def report(self) -> list[dict[str, Any]]:
        """Return every node met: number, name, state, when last heard of, clients and tasks."""
        # Copies: another thread may be asking.
        met = [(n, about, "here") for n, about in list(self.nodes.items())]
        met += [(n, about, "gone") for n, about in list(self.left.items())]
        return [
            {
                "node": str(node),
                "name": about.name,
                "state": state,
                "last_seen": self.seen.get(node),
                "clients": len(about.ids),
                "tasks": [task.name for task in about.tasks],
                "device": about.device,
            }
            for node, about, state in met
        ] + [
            {"node": str(node), "name": "", "state": f"refused: {why}"}
            for node, why in list(self.refused.items())
        ]

    def split(self, chosen: np.ndarray, weights: np.ndarray) -> dict[Seat, Asked]:
        """Divide clients among the nodes, group by group and block by block.

        Args:
            chosen: ``[n]`` positions in ``people``.
            weights: ``[n]``.
        """
        p = self.people
        order = np.argsort(p.block[chosen], kind="stable")
        chosen, weights = chosen[order], weights[order]
        nodes = list(self.nodes)
        numbers = {node: number for number, node in enumerate(nodes)}
        seats = np.array([numbers[self.placed[block]] for block in range(len(self.placed))])
        at, names = seats[p.block[chosen]], sorted(self.groups)
        pairs = np.column_stack([at, p.group[chosen]])
        split = {}
        for number, group in np.unique(pairs, axis=0).tolist():
            own = (pairs == [number, group]).all(1)
            mine = chosen[own]
            blocks, sizes = np.unique(p.block[mine], return_counts=True)
            split[nodes[number], names[group]] = Asked(
                clients=p.ids[mine],
                weights=weights[own],
                blocks=blocks,
                sizes=sizes,
                tasks=p.tasks[mine],
                declared=p.sizes[mine],
                held=None if p.held is None else p.held[mine],
                bundles=p.bundle[blocks],
            )
        return split


def _other_inputs(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Return in which inputs a node differs from the others, by name, with both numbers."""
    more, less = ([n for n in a if n not in b] for a, b in ((theirs, ours), (ours, theirs)))
    said = [f"{listed(more)} only there"] * bool(more) + [f"{listed(less)} not there"] * bool(less)
    return (
        f"it has {len(theirs)} inputs, {len(ours)} elsewhere: "
        f"{'; '.join(said) or 'in another order'}; give all nodes the same columns, such as by "
        "data.source.options.features"
    )


def _difference(theirs: Layout, ours: Layout) -> str:
    """Return in which tensor the backbone of a node differs from the others', with both sizes."""
    cure = "give all nodes inputs of the same columns and size, and the same model settings"
    for name in {**ours.shapes, **theirs.shapes}:
        there, here = (
            "x".join(map(str, layout.shapes[name])) if name in layout.shapes else "missing"
            for layout in (theirs, ours)
        )
        if there != here:
            return f"its backbone differs: {name!r} is {there} there, {here} elsewhere; {cure}"
    return f"its backbone differs: its tensors have another order; {cure}"


def _form(task: Task) -> str:
    size = f" of size {list(task.size)}" if task.size else ""
    return f"{task.kind} with {task.outputs} outputs{size}"


def _bare(group: Architecture) -> Architecture:
    return replace(group, initial={}, frozen={})


def _kind(group: Architecture) -> tuple[Any, ...]:
    """Return what two nodes have in common if they train the same model."""
    return _order(group.layout), group.digest


def _order(layout: Layout) -> tuple[Any, ...]:
    """Return what two layouts have in common if the numbers of their updates mean the same."""
    return tuple(layout.shapes.items()), layout.buffers
