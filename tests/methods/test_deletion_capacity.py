"""Deletion capacity: closed forms, play, and the orders that it depends on."""

import itertools

import numpy as np
import pytest

from unlearn_jax.methods.deletion_capacity import deletion_capacity, simulated_capacity
from unlearn_jax.methods.slice_orders import assigned_orders, rotated_orders

ERRORS = 4  # of so many standard errors: once in 16,000


@pytest.mark.parametrize("orders", [1, 2, 6])
@pytest.mark.parametrize("rows", [None, 1, 4])
def test_play_gives_the_closed_form(orders, rows):
    played = simulated_capacity(
        0, rotated_orders(6, orders), shards=5, rows=rows, draws=2000
    )
    told = deletion_capacity(5, 6, orders, rows=rows)
    assert played.stderr < 0.02 * told
    # One row in each of all slices, and all of them count: every row has to go.
    assert abs(played.value - told) <= ERRORS * played.stderr + 1e-9 * told


def test_the_closed_forms_are_those_of_small_cases():
    # One slice of one row: the first request. Two of one row, one counts: 1 or 2.
    assert deletion_capacity(1, 1, rows=1) == pytest.approx(1)
    assert deletion_capacity(1, 2, rows=1) == pytest.approx(1.5)
    assert deletion_capacity(1, 3, 3, rows=1) == pytest.approx(3)
    assert deletion_capacity(1, 2) == pytest.approx(2)
    assert deletion_capacity(2, 1) == pytest.approx(3)
    many = deletion_capacity(5, 6, 2, rows=10**6)
    assert many == pytest.approx(deletion_capacity(5, 6, 2), rel=1e-4)
    assert deletion_capacity(5, 6) == pytest.approx(68.5)


def test_play_request_by_request_agrees_with_play_in_continuous_time():
    random, risk = np.random.default_rng(1), np.array([0.5, 0.2, 0.2, 0.1])
    orders = assigned_orders(risk, 2, requests=3.0)
    ends = []
    for _ in range(1500):
        alive = np.ones((2, len(orders)), bool)
        for request in itertools.count(1):
            shard, part = random.integers(2), random.choice(4, p=risk)
            alive[shard] &= orders[:, 0] != part
            if not alive.any():
                ends.append(request)
                break
    error = np.std(ends) / np.sqrt(len(ends))
    played = simulated_capacity(0, orders, shards=2, risk=risk, draws=4000)
    assert abs(np.mean(ends) - played.value) < ERRORS * np.hypot(error, played.stderr)


def test_rotations_and_assignments_give_no_place_twice():
    for orders in (rotated_orders(5, 5), assigned_orders([0.3, 0.1, 0.2, 0, 0.4], 5)):
        assert np.array_equal(np.sort(orders, 0), np.tile(np.arange(5)[:, None], 5))
        assert np.array_equal(np.sort(orders, 1), np.tile(np.arange(5), (5, 1)))


def test_the_first_assignment_is_the_best_of_all_permutations():
    risk, requests = np.array([0.3, 0.05, 0.2, 0.1, 0.35]), 7.0
    places = np.arange(5)

    def benefit(order):
        return np.sum((5 - places) * (1 - risk[list(order)]) ** requests)

    best = max(itertools.permutations(range(5)), key=benefit)
    assert tuple(assigned_orders(risk, 1, requests=requests)[0]) == best
    assert np.array_equal(best, np.argsort(risk))


def test_where_the_risk_is_known_the_assigned_orders_live_longer():
    risk = np.array([0.5, 0.3, 0.15, 0.04, 0.01])
    known = simulated_capacity(0, assigned_orders(risk, 2), shards=3, risk=risk)
    blind = simulated_capacity(1, rotated_orders(5, 2), shards=3, risk=risk)
    error = np.hypot(known.stderr, blind.stderr)
    assert known.value > blind.value + ERRORS * error
    safe = np.array([0.5, 0.5, 0.0])
    assert simulated_capacity(0, assigned_orders(safe, 1), shards=1, risk=safe)[0] > 1e9


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: rotated_orders(3, 4), "4 orders of 3 slices"),
        (lambda: deletion_capacity(1, 3, 4), "4 orders of 3 slices"),
        (lambda: assigned_orders([0.5, 1.0], 1), "expected for every slice the chance"),
        (lambda: simulated_capacity(0, [[0, 0]], shards=1), "no permutations"),
        (
            lambda: simulated_capacity(0, [[0, 1]], shards=1, risk=[1.0]),
            "a chance for each of the 2",
        ),
        (
            lambda: simulated_capacity(0, [[0]], shards=1, risk=[1.0], rows=2),
            "not both",
        ),
    ],
)
def test_what_is_no_order_or_risk_is_told(call, says):
    with pytest.raises(ValueError, match=says):
        call()
