"""How long nodes have for a request: as configured, or by how long they took before."""

from __future__ import annotations

from collections import deque

from fedjoint.config.schema import StrategyConfig

_TIMES, _LEAST = 10.0, 60.0  # the longest time of late, and seconds below which nobody is late
_ROUNDS = 10  # that "of late" is: a node that was slow once does not count for ever
_CLOSE = 0.9  # of the time that nodes had: a reply as late as that has clients that were late


class Pace:
    """How long the nodes of a run have for requests of one kind.

    Where ``strategy.timeout`` is not set, a deployed run goes by what it has measured: nodes have
    ten times as long as the slowest took in the last ten rounds, but at least a minute, and for
    the first request as long as a simulated one, an hour. Who asks more clients of a node than
    were measured gives it that much more time. A run that is resumed measures anew.

    Args:
        config: the run's.
        measures: whether the run goes by what it measures.
    """

    def __init__(self, config: StrategyConfig, measures: bool) -> None:
        self._most = config.limit
        self._measures = measures and config.timeout is None
        self._took: deque[tuple[float, int]] = deque(maxlen=_ROUNDS)

    def seconds(self, clients: int) -> float:
        """Return the seconds that a node has which is asked for ``clients``, or fewer."""
        if not self._measures or not self._took:
            return self._most
        longest = max(seconds * max(1.0, clients / asked) for seconds, asked in self._took)
        return min(self._most, max(_LEAST, _TIMES * longest))

    def note(self, replies: list[tuple[float, int]], had: float) -> None:
        """Note the replies to a round's request.

        Args:
            replies: of each node, the seconds until it had replied, and the clients asked of it.
            had: the seconds that it had. Replies that took about as long say nothing: some of
                their clients were late.
        """
        counts = [(seconds, clients) for seconds, clients in replies if seconds < _CLOSE * had]
        if counts:
            self._took.append(max(counts))
