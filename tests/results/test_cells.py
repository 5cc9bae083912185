import math

import pytest

from unlearn_jax.results.cells import floor, interval, mean_and_error, plain


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
