"""Records of rounds that nobody ran."""

from dataclasses import replace

from fedjoint.runs.record import Participation, RoundRecord, Seconds, Steps, Traffic

_PLAIN = RoundRecord(
    round=1,
    objective=0.5,
    loss={},
    evaluation=None,
    spread=None,
    clients=Participation(asked=2, trained=2, ids=(0, 1)),
    steps=Steps(mean=4.0, total=8),
    kept=None,
    fallback=None,
    bytes=Traffic(down=100, up=50),
    seconds=Seconds(0.1, 0.2, 0.1, 0.1, 0.1, 0.6),
    diagnostics=None,
)


def make_record(round, **fields):
    """Return a round's record with these fields, and plain ones elsewhere."""
    return replace(_PLAIN, round=round, **fields)
