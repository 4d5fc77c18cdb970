"""The figures of a server, its nodes and how its runs go; and those of a node."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedjoint.deploy.tail import Tail

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: a word in what is said of a failure -> its kind
_KINDS = {
    "strategy.timeout": "late",
    "time limit": "late",
    "gone": "gone",
    "worker ended": "died",
    "damaged": "damaged",
}


class RunFigures:
    """Sums over the records of one run, read on as they grow.

    Args:
        path: the run directory.
    """

    def __init__(self, path: Path) -> None:
        self._tail = Tail(path / "metrics.jsonl")
        self.name = path.name
        self._reset()

    def _reset(self) -> None:
        self.rounds = 0
        self.seconds: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def update(self) -> None:
        """Read what is new."""
        if self._tail.shrank():  # a resume has dropped rounds
            self._reset()
        for record in self._tail.entries():
            self._add(record)

    def _add(self, record: dict[str, Any]) -> None:
        self.rounds += 1
        self.seconds.update(record["seconds"])
        self.sent.update(record["bytes"])
        clients = record["clients"]
        for failure in (*clients["failed"], *clients["unevaluated"]):
            self.failures[kind_of(failure["reason"])] += 1


def kind_of(reason: str) -> str:
    """Return of which kind a failure is: late, gone, died, damaged or other."""
    return next((kind for word, kind in _KINDS.items() if word in reason), "other")


class ServerFigures:
    """What a server shows.

    Args:
        state: the SuperLink's: it knows the nodes, and the runs with their directories.
    """

    def __init__(self, state: Any) -> None:
        self._state = state
        self._runs: dict[Path, RunFigures] = {}

    def healthy(self) -> tuple[bool, str]:
        """Say whether the database answers."""
        try:
            nodes = self._nodes()
        except Exception as error:  # whatever a database may raise
            return False, f"the database does not answer: {type(error).__name__}"
        return True, f"ok: {nodes['online']} nodes are here"

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily as Count
        from prometheus_client.core import GaugeMetricFamily as Gauge

        nodes = Gauge("fedjoint_nodes", "Nodes, by state.", labels=["state"])
        for state, count in self._nodes().items():
            nodes.add_metric([state], count)
        rounds = Count("fedjoint_rounds", "Rounds done.", labels=["run"])
        seconds = Count("fedjoint_seconds", "Seconds, by phase.", labels=["run", "phase"])
        sent = Count("fedjoint_bytes", "Bytes of updates and backbones.", labels=["run", "way"])
        failures = Count("fedjoint_failures", "Failures, by kind.", labels=["run", "kind"])
        for run in self._running():
            run.update()
            rounds.add_metric([run.name], run.rounds)
            for family, counts in ((seconds, run.seconds), (sent, run.sent)):
                for key, value in counts.items():
                    family.add_metric([run.name, key], value)
            for kind, count in run.failures.items():
                failures.add_metric([run.name, kind], count)
        yield from (nodes, rounds, seconds, sent, failures)

    def _nodes(self) -> Counter[str]:
        known = Counter(online=0, offline=0, registered=0)
        known.update(node.status for node in self._state.get_node_info())
        return known

    def _running(self) -> list[RunFigures]:
        for info in self._state.get_run_info(statuses=["running"]):
            if path := info.override_config.get("run-dir"):
                self._runs.setdefault(Path(str(path)), RunFigures(Path(str(path))))
        return list(self._runs.values())


class NodeFigures:
    """What a node shows.

    Attributes:
        connected: whether its server answers.
        answered: messages answered, by kind.
        seconds: that took, by kind.
    """

    def __init__(self) -> None:
        self.connected = False
        self.answered: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def answer(self, kind: str, seconds: float) -> None:
        """Count a message that was answered."""
        self.answered[kind] += 1
        self.seconds[kind] += seconds

    def healthy(self) -> tuple[bool, str]:
        """Say whether the server answers."""
        return (True, "ok: connected") if self.connected else (False, "not connected; see the log")

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily as Count
        from prometheus_client.core import GaugeMetricFamily as Gauge

        yield Gauge("fedjoint_connected", "Whether the server answers.", value=self.connected)
        answered = Count("fedjoint_messages", "Messages answered, by kind.", labels=["kind"])
        seconds = Count("fedjoint_message_seconds", "Seconds that took.", labels=["kind"])
        for family, counts in ((answered, self.answered), (seconds, self.seconds)):
            for kind, value in dict(counts).items():
                family.add_metric([kind], value)
        yield from (answered, seconds)
