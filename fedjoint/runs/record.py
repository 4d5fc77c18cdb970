"""What a round leaves: who took part, what was measured, what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fedjoint.errors import UserError

#: task, or ``task/metric`` for metrics after its first -> value, None where it is undefined
Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Failure:
    """Who did not do what it was asked.

    Attributes:
        client: its id; None where the whole node failed.
        node: the node's number.
        reason: why, in one line.
        name: what people call the node.
        fault: whether it sent what nobody may send; after three such rounds it is not asked again.
    """

    client: int | None
    node: int
    reason: str
    name: str = ""
    fault: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Participation:
    """Who took part in a round.

    Attributes:
        asked: number of clients that were asked to train.
        trained: number of those that did.
        ids: their ids, ascending; None in rounds of very many.
        failed: who did not train.
        unevaluated: who was to be evaluated, and was not.
        untrained: number of those that were not evaluated as they never trained.
        clipped: whose updates were scaled down (``strategy.clip``), and by how much; and whose
            losses do not count.
    """

    asked: int
    trained: int
    ids: tuple[int, ...] | None
    failed: tuple[Failure, ...] = ()
    unevaluated: tuple[Failure, ...] = ()
    untrained: int = 0
    clipped: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Steps:
    """Gradients that the clients that trained computed: ``mean`` per client, and in ``total``."""

    mean: float | None
    total: int


@dataclass(frozen=True)
class Traffic:
    """Bytes sent to train: ``down`` to the clients, and ``up`` to the server."""

    down: int
    up: int


@dataclass(frozen=True)
class Seconds:
    """Where the time of a round went.

    Attributes:
        broadcast: until requests were ready.
        train: on the node that took longest.
        gather: waiting for replies beyond that.
        merge: merging, with the checks of it.
        evaluate: evaluating.
        round: all together.
        work: training, of all nodes one after the other.
    """

    broadcast: float
    train: float
    gather: float
    merge: float
    evaluate: float
    round: float
    work: float = 0.0


@dataclass(frozen=True)
class RoundRecord:
    """A line of ``metrics.jsonl``.

    Attributes:
        round: from 1; 0: the evaluation before the first (``evaluate.initial``).
        objective: mean training loss, all tasks together.
        loss: task -> mean training loss.
        evaluation: split -> task -> metric, pooled over clients; None in rounds without.
        spread: task -> how the clients' own test metrics differ, see
            :func:`fedjoint.server.evaluation.spread`; None in rounds without an evaluation.
        own: split -> measure -> client's id -> its own metric, where clients are tasks
            (``data.clients_are_tasks``); what is undefined is left out.
        clients: who took part.
        steps: gradients computed.
        kept: why the backbone stayed as it was; None where it was merged.
        fallback: why clients were trained one by one, or fewer at once than intended; None where
            they were not.
        bytes: what was sent.
        seconds: where the time went.
        diagnostics: how much the updates agree, see :func:`fedjoint.server.agreement.diagnose`,
            and ``transfer``; ``groups``: that of each group's own part; None in rounds without.
        strategy: numbers that the strategy put into its ``report``.
    """

    round: int
    objective: float | None
    loss: dict[str, float]
    evaluation: dict[str, Metrics] | None
    spread: dict[str, dict[str, float | int]] | None
    clients: Participation
    steps: Steps
    kept: str | None
    fallback: str | None
    bytes: Traffic
    seconds: Seconds
    diagnostics: dict[str, Any] | None
    strategy: dict[str, float] = field(default_factory=dict)
    own: dict[str, dict[str, dict[str, float]]] | None = None

    @property
    def test(self) -> Metrics:
        """The pooled test metrics; empty in rounds without an evaluation."""
        return self.evaluation["test"] if self.evaluation else {}

    def to_json(self) -> dict[str, Any]:
        """Return the record in nested dicts and lists, for :meth:`from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> RoundRecord:
        """Return the record behind :meth:`to_json`.

        Raises:
            UserError: something lacks, or is too much.
        """
        try:
            clients = {"clipped": (), **tree["clients"]}
            ids = clients.pop("ids")
            failed, unevaluated, clipped = (
                tuple(Failure(**entry) for entry in clients.pop(kind))
                for kind in ("failed", "unevaluated", "clipped")
            )
            parts = {
                "clients": Participation(
                    **clients,
                    ids=None if ids is None else tuple(ids),
                    failed=failed,
                    unevaluated=unevaluated,
                    clipped=clipped,
                ),
                "steps": Steps(**tree["steps"]),
                "bytes": Traffic(**tree["bytes"]),
                "seconds": Seconds(**tree["seconds"]),
            }
            return cls(**{**tree, **parts})
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise UserError(f"it is not the record of a round of this version: {error}") from None


def common_failure(records: Sequence[RoundRecord]) -> str:
    """Say what most failures in ``records``, to train or else to evaluate, have as their reason."""
    failed = [failure for record in records for failure in record.clients.failed]
    failed = failed or [each for record in records for each in record.clients.unevaluated]
    reasons = Counter(failure.reason for failure in failed)
    ((why, count),) = reasons.most_common(1) or [("no client was asked to", 0)]
    return f"of {reasons.total()} failures {count} say: {why}"
