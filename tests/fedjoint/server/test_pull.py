"""Every task pulls alike: against a general solver, and where that cannot be."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from fedjoint.config.scenario import scenario_config
from fedjoint.problem import build_problem
from fedjoint.server.pull import equal_pull


def pulls(tasks):
    """Return every task's pull over the strongest one's: the weight of all clients that have it."""
    total = equal_pull(np.array(tasks)) @ np.array(tasks)
    return total / total.max()


@pytest.mark.parametrize("scenario", ["digits", "tabular", "conflict"])
def test_the_scenarios_tasks_pull_alike(scenario):
    tasks = build_problem(scenario_config(scenario, [])).data.tasks
    assert pulls(tasks).min() > 0.99  # by one over the clients of each task: digits 0.5


def test_with_one_task_a_client_it_is_one_over_the_clients_of_the_task():
    weights = equal_pull(np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], bool))
    np.testing.assert_allclose(weights, [1, 0.5, 0.5, 1], rtol=1e-5)


def test_clients_with_two_tasks_by_hand():
    # Prices p of a, q of b: 2 p + (p + q) / 2 = 1 (two clients of a alone, one of both), and
    # q + (p + q) / 2 = 1, so that p = 2 / 7 and q = 4 / 7.
    weights = equal_pull(np.array([[1, 0], [1, 0], [0, 1], [1, 1]], bool))
    np.testing.assert_allclose(weights, np.array([2, 2, 4, 3]) / 7, rtol=1e-5)


def test_clients_with_all_tasks_count_alike():
    weights = equal_pull(np.array([[1, 0], [0, 1], [1, 1], [1, 1]], bool))
    np.testing.assert_allclose(weights, 1 / 3, rtol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_pulls_are_equal_and_their_squares_least(seed):
    rng = np.random.default_rng(seed)
    tasks = rng.random((12, 3)) < 0.5
    tasks[np.arange(12), np.arange(12) % 3] = True
    own, heavy = np.sqrt(tasks.sum(1)), 1e4  # which makes a condition of the equal pulls
    rows = np.vstack([heavy * tasks.T, np.diag(own)])
    wanted = np.append(np.full(3, heavy), np.zeros(12))
    least = 0.01 * 3 / tasks.sum()
    best = lsq_linear(rows, wanted, bounds=(least, np.inf), tol=1e-14)
    np.testing.assert_allclose(equal_pull(tasks), best.x, atol=1e-6)


def test_nobody_counts_for_nothing():
    # All clients of b have a, too: its whole pull is theirs, and would be nothing for the others.
    weights = equal_pull(np.array([[1, 0]] * 3 + [[1, 1]], bool))
    np.testing.assert_allclose(weights[:3], 0.01 * 2 / 5)
    assert pulls([[1, 0]] * 3 + [[1, 1]]).min() > 0.98


def test_where_pulls_cannot_be_equal_they_are_as_near_as_can_be():
    # a pulls as much as b and c together; of (2 v - 1)^2 + 2 (v - 1)^2 the least is at 2 / 3.
    weights = equal_pull(np.array([[1, 1, 0], [1, 0, 1]], bool))
    np.testing.assert_allclose(weights, 2 / 3, rtol=1e-4)


@pytest.mark.parametrize("tasks", [np.zeros((0, 2), bool), np.zeros((2, 2), bool)])
def test_without_tasks_there_is_no_pull(tasks):
    assert equal_pull(tasks).shape == (len(tasks),)


def test_many_clients_with_all_kinds_of_tasks():
    tasks = np.random.default_rng(0).random((2000, 20)) < 0.3
    assert pulls(tasks).min() > 1 - 1e-6
