import math

import numpy as np
import pytest

from unlearn_jax.results.cells import csv_cell, floor, interval, mean_and_error, plain


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (91.2376, 0.3512, "91.24 ± 0.35"),
        (91.2376, 3.512, "91.2 ± 3.5"),
        (12345.6, 1234.0, "12300 ± 1200"),
        (0.5, 0.0996, "0.50 ± 0.10"),
        (0.5, 0.00996, "0.500 ± 0.010"),
        (100.0, 0.0, "100 ± 0"),
        (0.0024, 1e-20, "0.00240 ± 0"),
        (0.0, 0.0, "0.00 ± 0"),
        (-0.0001, 0.1, "0.00 ± 0.10"),
        (3.25e-12, 4e-13, "(3.25 ± 0.40)e-12"),
        (6.1e9, 2.2e8, "(6.10 ± 0.22)e9"),
        (91.2376, math.inf, "91.2 ± ?"),
        (math.inf, math.inf, "inf"),
        (math.nan, 0.1, "nan"),
        (1.0, 1e-8, "1.000000 ± 0.000000"),
    ],
)
def test_errors_have_two_significant_digits(mean, error, text):
    assert mean_and_error(mean, error) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((-1.234, -2.34, -0.12), "-1.2 [-2.3, -0.1]"),
        ((0.0, -0.5, 0.5), "0.00 [-0.50, +0.50]"),
        ((100 / 3,) * 3, "+33.3 [+33.3, +33.3]"),
        ((33.3, 33.3 - 1e-13, 33.3 + 1e-13), "+33.3 [+33.3, +33.3]"),
        ((-12.4, -137.0, 113.0), "-12 [-137, +113]"),
        ((-1.234, -math.inf, math.inf), "-1.23 [?, ?]"),
        ((2e-9, 1e-9, 3e-9), "(+2.0 [+1.0, +3.0])e-9"),
        ((math.nan, math.nan, math.nan), "nan"),
    ],
)
def test_intervals_show_signs_and_digits_of_the_half_width(ends, text):
    assert interval(*ends) == text


def test_plain_numbers_have_three_digits():
    shown = [plain(x) for x in (0.0, 2.7182, 27.18, 2718.2, 1e-7, -0.5, math.inf)]
    assert shown == ["0.00", "2.72", "27.2", "2718", "1.00e-7", "-0.500", "inf"]


def test_the_floor_shows_where_fresh_oracles_lie():
    assert floor(2.7, 3.9) == "|Δ| 2.70 [-3.90, +3.90]"
    assert floor(2.7, math.nan) == "|Δ| 2.70"


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "+cmd|' /C calc'!A0", "-1+1", "-1-1", "@SUM(A1)", "\t=1", "\r=1"),
        *("-", "+", "-a", "-1 [=1]", "+1 [cmd|' /C calc'!A0", "-1 (2)", "-\u0661"),
    ],
)
def test_a_csv_cell_never_begins_a_formula(text):
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "value",
    [
        *("-0.5", "+3.2", "-1e-05", "-inf", "-1.2 [-2.3, -0.1]", "+0.1 [?, ?]"),
        *("-12.3 ± ?", "-1.2 ± 0.3", "oracle", "", "1=1", "a-b"),
        *(-0.5, -3, None, float("-inf")),
    ],
)
def test_numbers_and_plain_words_stay_as_they_are_in_csv(value):
    assert csv_cell(value) is value


def test_signed_cells_are_numbers_in_csv():
    drawn = np.random.default_rng(0).normal(size=(200, 3))
    for a, b, c in drawn * 10.0 ** np.array([-3, -1, 1]):
        low, high = sorted((b, c))
        for text in (
            plain(a),
            plain(a, signed=True),
            mean_and_error(a, abs(b)),
            interval(a, low, high),
            interval(a, math.nan, math.nan),
        ):
            assert csv_cell(text) == text
