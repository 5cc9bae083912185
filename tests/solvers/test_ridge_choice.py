"""The chooser: costs from sizes and rates."""

import math

import pytest

from unlearn_jax.solvers.ridge_choice import (
    Rates,
    choose_form,
    crossover,
    expected_seconds,
    measure_rates,
    row_work,
)

RATES = Rates(1000, {"gram": 1.0, "inverse": 0.1}, {"gram": 1e-9, "inverse": 1e-9})


def test_few_rows_update_and_many_rows_solve_anew():
    assert choose_form(2048, 1).form == "inverse"
    assert choose_form(2048, 1024).form == "gram"
    few, many = choose_form(1000, 10, rates=RATES), choose_form(1000, 900, rates=RATES)
    assert (few.form, many.form) == ("inverse", "gram")
    assert f"{few.crossover:.0f} rows" in few.reason


def test_forms_cost_the_same_at_the_crossover():
    place = crossover(RATES)
    gram, inverse = (expected_seconds(RATES, form, place) for form in RATES.fixed)
    assert 1 < place < 1000
    assert gram == pytest.approx(inverse, rel=0.01)


def test_no_crossover_is_infinite_and_an_early_one_is_the_first_row():
    never = RATES._replace(fixed={"gram": 1e9, "inverse": 0.1})
    always = RATES._replace(fixed={"gram": 0.0, "inverse": 0.1})
    assert crossover(never) == math.inf
    assert crossover(always) == 1
    assert choose_form(1000, 5, rates=never).form == "inverse"
    assert choose_form(1000, 5, rates=always).form == "gram"


def test_measured_rates_reproduce_what_was_timed():
    rates = measure_rates(24, 2, few=3, many=9)
    for form in ("gram", "inverse"):
        small, large = (expected_seconds(rates, form, n) for n in (3, 9))
        assert 0 < small <= large < 60
    assert choose_form(24, 3, rates=rates).seconds.keys() == {"gram", "inverse"}


def test_work_of_both_forms_is_that_of_the_kept_one():
    for n in (1, 50):
        both = row_work("gram", 64, n) + row_work("inverse", 64, n)
        assert row_work("kept", 64, n) == both


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose_form(0, 3), "got 0 and 3"),
        (lambda: choose_form(5, 0), "got 5 and 0"),
        (lambda: choose_form(5, 1, rates=RATES), "measured at 1000"),
        (lambda: measure_rates(8, 1, few=4, many=4), "got 4 and 4"),
    ],
)
def test_impossible_sizes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
