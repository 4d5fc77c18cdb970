"""A strategy that fails on and on ends its run; one that fails now and then does not."""

import pytest
from support import small

from fedjoint.errors import UserError
from fedjoint.runs.directory import RunDir
from fedjoint.server.refusals import MOST
from fedjoint.simulation import simulate

ROUNDS = 30

#: From its third round on, what merge does, and what is said of it.
FAILS = {
    "a step that is not finite": ("return updates.mean() * float('nan')", "is not finite"),
    "a wrong shape": ("return updates.mean()[1:]", "merge returned"),
    "an error": ("return 1 // 0", "ZeroDivisionError"),
    "a refusal": ("raise ValueError('no more')", "Rule: no more"),
}


def run(tmp_path, body, **strategy):
    (tmp_path / "rule.py").write_text(f"""
import fedjoint

class Rule(fedjoint.JointStrategy):
    def merge(self, updates):
        if {strategy.pop("when", "updates.round > 2")}:
            {body}
        return updates.mean()
""")
    own = {"name": f"{tmp_path / 'rule.py'}:Rule", **strategy}
    rounds: list = []
    config = small.config(tmp_path / "runs", rounds=ROUNDS, strategy=own)
    try:
        return simulate(config, callbacks=[rounds.append]), rounds
    except UserError as error:
        return error, rounds


@pytest.mark.parametrize("what", FAILS)
def test_a_strategy_that_fails_for_one_reason_ends_its_run(what, tmp_path):
    body, says = FAILS[what]
    error, rounds = run(tmp_path, body)
    assert isinstance(error, UserError) and says in str(error) and "\n" not in str(error)
    last = 2 + MOST
    assert f"{MOST} rounds in a row, to round {last}, have not merged for one reason" in str(error)
    assert [bool(record.kept) for record in rounds] == [False] * 2 + [True] * (MOST - 1)
    (folder,) = (tmp_path / "runs").iterdir()
    assert RunDir.open(folder).status == "failed"


@pytest.mark.parametrize(
    ("when", "body"),
    [
        ("updates.round % 10", "raise ValueError('now and then')"),
        ("updates.round > 2", "raise ValueError(f'in round {updates.round}')"),
    ],
)
def test_other_rounds_may_go_otherwise(when, body, tmp_path):
    _, rounds = run(tmp_path, body, when=when)
    assert len(rounds) == ROUNDS and sum(bool(record.kept) for record in rounds) > MOST
