"""Who there is: the nodes of a run, the clients that live there, and who trains what."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fedjoint import messages
from fedjoint.collect import Asked
from fedjoint.config import Config
from fedjoint.errors import UserError
from fedjoint.layout import Layout
from fedjoint.population import Population, assign, makespan
from fedjoint.tasks import Task

log = logging.getLogger("fedjoint.roster")


class Roster:
    """The nodes and clients of a run, as the nodes describe them.

    Args:
        config: the run's configuration.
        tasks: tasks with losses or metrics of their own; the others are what the nodes say.
        wait: seconds to wait for ``engine.min_nodes`` nodes.

    Attributes:
        nodes: number -> what the node said of itself, of those here.
        people: their clients.
        tasks: all tasks of theirs.
        layout: of the shared tensors.
        initial: the first backbone, by name.
        placed: block of clients -> node.
        costs: block -> measured seconds.
        seen: node -> when it was last heard of, seconds since 1970.
    """

    def __init__(self, config: Config, tasks: tuple[Task, ...] | None, wait: float) -> None:
        self.config, self.given, self.wait = config, tasks or (), wait
        self.nodes: dict[int, dict[str, Any]] = {}
        self.left: dict[int, dict[str, Any]] = {}
        self.replaced: set[int] = set()
        self.refused: dict[int, str] = {}
        self.tasks: tuple[Task, ...] = ()
        self.layout = Layout({})
        self.initial: dict[str, np.ndarray] = {}
        nobody = np.zeros(0, np.int64)
        self.people = Population(nobody, nobody, np.zeros((0, 0), bool), nobody)
        self.placed: dict[int, int] = {}
        self.costs: dict[int, float] = {}
        self.seen: dict[int, float] = {}

    def discover(self, grid: Grid, request: Mapping[str, Any]) -> None:
        """Ask new nodes who lives there; forget those that are gone; wait while they are too few.

        Args:
            grid: reaches the nodes.
            request: settings of the message that asks.

        Raises:
            UserError: too few nodes came in time, or those that came cannot take part.
        """
        least, end = self.config.engine.min_nodes, time.monotonic() + self.wait
        while True:
            present = set(grid.get_node_ids())
            self._meet(grid, present, request)
            if len(self.nodes) >= least:
                return
            hopeless = not len(self.people.ids) and len(present) >= least
            if hopeless or time.monotonic() >= end:
                reasons = "; ".join(f"node {n}: {why}" for n, why in self.refused.items())
                raise UserError(
                    f"{len(self.nodes)} of {len(present)} nodes can take part, "
                    f"engine.min_nodes is {least}: {reasons or 'no other node came'}"
                )
            log.info("waiting for nodes: %d of %d are here", len(self.nodes), least)
            time.sleep(1.0)

    def _meet(self, grid: Grid, present: set[int], request: Mapping[str, Any]) -> None:
        gone = [node for node in self.nodes if node not in present]
        # Those refused before are asked again: they may have mended.
        new = sorted(present - set(self.nodes) - self.replaced)
        for node in gone:
            log.warning("node %s (%d) is gone", self.nodes[node]["name"], node)
            self.left[node] = self.nodes[node]
            del self.nodes[node]
        if not new and not gone:
            return
        content = messages.pack({**request, "initial": not self.initial})
        asked = [Message(content, node, messages.QUERY) for node in new]
        for reply in grid.send_and_receive(asked, timeout=self.config.strategy.timeout):
            node = reply.metadata.src_node_id
            try:
                self._admit(node, reply)
            except UserError as error:
                if self.refused.get(node) != str(error):
                    log.error("node %d refused: %s", node, error)
                self.refused[node] = str(error)
        if self.nodes:
            self._know()

    def _admit(self, node: int, reply: Message) -> None:
        if reply.has_error():
            raise UserError(reply.error.reason or "it cannot start")
        about = messages.settings(reply)
        shapes = {name: tuple(shape) for name, shape in about["layout"].items()}
        layout = Layout(shapes, tuple(about["buffers"]))
        if not self.layout.shapes:
            self.layout = layout
        elif layout != self.layout:
            raise UserError(
                "its backbone differs from the other nodes': give all the same model settings"
            )
        if not self.initial:
            self.initial = messages.arrays(reply, "backbone")
        known = {
            name: (kind, outputs) for n in self.nodes.values() for name, kind, outputs in n["tasks"]
        }
        for name, kind, outputs in about["tasks"]:
            if known.get(name, (kind, outputs)) != (kind, outputs):
                raise UserError(
                    f"task {name!r} is {kind} with {outputs} outputs there, {known[name]} elsewhere"
                )
        about |= _population(reply, len(about["tasks"]))
        self._replace(node, about)
        self.nodes[node] = about
        self.seen[node] = time.time()
        self.refused.pop(node, None)
        self.left = {n: a for n, a in self.left.items() if n != node and a["name"] != about["name"]}
        log.info(
            "node %s (%d): %d clients, device %s",
            about["name"],
            node,
            len(self.nodes[node]["ids"]),
            about["device"],
        )

    def _replace(self, node: int, about: dict[str, Any]) -> None:
        """Forget the node that ``about`` is, if it was here under another number before."""
        if about["movable"]:
            return
        for other, known in list(self.nodes.items()):
            shared = np.intersect1d(known["ids"], about["ids"])
            if not len(shared):
                continue
            if known["name"] != about["name"]:
                raise UserError(
                    f"client {shared[0]} lives on node {known['name']} already: give every "
                    "client one id"
                )
            log.warning("node %s (%d) is back as %d", about["name"], other, node)
            self.replaced.add(other)
            del self.nodes[other]

    def _know(self) -> None:
        """Rebuild the population from what the nodes said."""
        movable = [n for n in self.nodes.values() if n["movable"]]
        hosts = movable[:1] or [self.nodes[n] for n in sorted(self.nodes)]
        names: list[str] = []
        for about in hosts:
            names += [name for name, _, _ in about["tasks"] if name not in names]
        kinds = {name: (kind, outputs) for about in hosts for name, kind, outputs in about["tasks"]}
        given = {task.name: task for task in self.given}
        self.tasks = tuple(given.get(name) or Task(name, *kinds[name]) for name in names)
        ids, sizes, tasks, home = [], [], [], []
        for number, about in enumerate(self.nodes.values()):
            if not any(about is host for host in hosts):
                continue
            mask = np.zeros((len(about["ids"]), len(names)), bool)
            mask[:, [names.index(name) for name, _, _ in about["tasks"]]] = about["mask"]
            ids.append(about["ids"])
            sizes.append(about["sizes"])
            tasks.append(mask)
            home.append(np.full(len(about["ids"]), -1 if movable else number))
        everyone = np.concatenate(ids)
        order = np.argsort(everyone, kind="stable")
        self.people = Population(
            everyone[order],
            np.concatenate(sizes)[order],
            np.concatenate(tasks)[order],
            np.concatenate(home)[order],
            self.config.engine.blocks,
        )
        self.costs = {}  # the blocks are others now
        self.place()

    def place(self) -> None:
        """Give every block a node, by measured costs where any node can train any block."""
        p = self.people
        loads = np.bincount(p.block, p.sizes)
        rate = sum(self.costs.values()) / max(1.0, float(sum(loads[b] for b in self.costs)))
        costs = {b: self.costs.get(b, (rate or 1.0) * float(loads[b])) for b in range(len(loads))}
        if (p.home < 0).all():
            new = assign(costs, list(self.nodes))
            nodes = set(self.nodes)
            stays = self.placed.keys() == new.keys() and nodes.issuperset(self.placed.values())
            # Moving a block costs its data and heads a new home: it has to pay.
            if not stays or makespan(costs, new) < 0.9 * makespan(costs, self.placed):
                self.placed = new
        else:
            first, hosts = np.unique(p.block, return_index=True)[1], list(self.nodes)
            self.placed = {int(p.block[i]): hosts[p.home[i]] for i in first}

    def report(self) -> list[dict[str, Any]]:
        """Return every node met: number, name, state, when last heard of, clients and tasks."""
        met = [(n, about, "here") for n, about in self.nodes.items()]
        met += [(n, about, "gone") for n, about in self.left.items()]
        return [
            {
                "node": str(node),
                "name": about["name"],
                "state": state,
                "last_seen": self.seen[node],
                "clients": len(about["ids"]),
                "tasks": [name for name, _, _ in about["tasks"]],
                "device": about["device"],
            }
            for node, about, state in met
        ] + [
            {"node": str(node), "name": "", "state": f"refused: {why}"}
            for node, why in self.refused.items()
        ]

    def split(self, chosen: np.ndarray, weights: np.ndarray) -> dict[int, Asked]:
        """Divide clients among the nodes, block by block.

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
        at = seats[p.block[chosen]]
        split = {}
        for number in np.unique(at).tolist():
            mine = chosen[at == number]
            blocks, sizes = np.unique(p.block[mine], return_counts=True)
            split[nodes[number]] = Asked(
                p.ids[mine], weights[at == number], blocks, sizes, p.tasks[mine]
            )
        return split


def _population(reply: Message, tasks: int) -> dict[str, np.ndarray]:
    """Return the checked ``ids`` and ``sizes`` ``[n]`` and ``mask`` ``[n, tasks]`` of a node."""
    found = messages.arrays(reply, "population")
    count = len(found.get("ids", ()))
    for name, kind, shape in (
        ("ids", "iu", (count,)),
        ("sizes", "iu", (count,)),
        ("mask", "b", (count, tasks)),
    ):
        array = found.get(name)
        if array is None or array.dtype.kind not in kind or array.shape != shape:
            raise UserError(f"damaged message: its population has no {name} of shape {shape}")
        if kind == "iu" and count and int(array.min()) < 0:
            raise UserError(f"damaged message: its population has negative {name}")
    return found
