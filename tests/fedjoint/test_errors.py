"""A user's mistake is one line that says what is allowed and what was meant."""

import pytest

import fedjoint
from fedjoint.errors import choose


def test_an_error_of_a_user_s_is_a_value_error():
    with pytest.raises(ValueError, match="lower it"):
        raise fedjoint.UserError("lower it")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fedavgg", "unknown rule 'fedavgg': allowed are fedavg, krum; did you mean 'fedavg'?"),
        ("zzz", "unknown rule 'zzz': allowed are fedavg, krum"),
    ],
)
def test_the_nearest_name_is_offered_where_one_is_near(name, line):
    assert str(choose("rule", name, ["krum", "fedavg"])) == line
