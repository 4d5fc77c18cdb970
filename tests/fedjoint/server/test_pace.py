"""How long nodes have for a round, by what was measured."""

import pytest

from fedjoint.config.schema import StrategyConfig
from fedjoint.server.pace import Pace


def pace(**settings):
    return Pace(StrategyConfig(**settings), measures=True)


def test_the_first_request_may_take_an_hour_and_the_next_ten_times_the_slowest_node():
    measured = pace()
    assert measured.seconds(1) == 3600.0
    measured.note([(3.0, 5), (20.0, 5)], had=3600.0)
    assert measured.seconds(5) == 200.0


def test_nobody_is_late_within_a_minute_or_gets_more_than_at_first():
    quick, slow = pace(), pace()
    quick.note([(0.1, 5)], had=3600.0)
    slow.note([(3000.0, 5)], had=3600.0)
    assert (quick.seconds(5), slow.seconds(5)) == (60.0, 3600.0)


def test_who_is_asked_more_clients_gets_more_time():
    measured = pace()
    measured.note([(20.0, 2)], had=3600.0)
    assert measured.seconds(10) == 1000.0 and measured.seconds(1) == 200.0


def test_a_reply_that_took_all_the_time_says_nothing():
    measured = pace()
    measured.note([(3599.0, 5)], had=3600.0)
    assert measured.seconds(5) == 3600.0
    measured.note([(20.0, 5)], had=3600.0)
    measured.note([(199.0, 5), (10.0, 5)], had=200.0)  # one node had a stuck client
    assert measured.seconds(5) == 200.0
    measured.note([], had=200.0)
    assert measured.seconds(5) == 200.0


def test_what_was_slow_long_ago_does_not_count():
    measured = pace()
    measured.note([(100.0, 5)], had=3600.0)
    for _ in range(9):
        measured.note([(10.0, 5)], had=1000.0)
    assert measured.seconds(5) == 1000.0
    measured.note([(10.0, 5)], had=1000.0)
    assert measured.seconds(5) == 100.0


@pytest.mark.parametrize("simulated", [True, False])
def test_a_number_pins_it_and_a_simulation_measures_nothing(simulated):
    fixed = Pace(StrategyConfig() if simulated else StrategyConfig(timeout=7.0), not simulated)
    fixed.note([(20.0, 5)], had=3600.0)
    assert fixed.seconds(5) == (3600.0 if simulated else 7.0)
