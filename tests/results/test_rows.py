"""Rows: what is picked from them, and what they have on average."""

import math

import numpy as np
import pytest

from unlearn_jax.results.rows import Row, Rows

ROWS = Rows(
    Row("accuracy", value, "%", {"method": method, "seed": seed})
    for method, values in {"ssd": (1.0, 2.0, 6.0), "scrub": (5.0,)}.items()
    for seed, value in enumerate(values)
)


def test_the_mean_of_rows_has_a_standard_error_where_several_tell():
    mean, error = ROWS.mean("accuracy", method="ssd")
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3))
    one, unknown = ROWS.mean("accuracy", method="scrub")
    assert one == 5.0
    assert math.isnan(unknown)
    assert all(math.isnan(value) for value in ROWS.mean("accuracy", method="lfssd"))


def test_a_failed_row_makes_the_mean_unknown():
    failed = Row("accuracy", None, "%", {"method": "ssd", "seed": 3}, "diverged")
    mean, _ = Rows([*ROWS, failed]).mean("accuracy", method="ssd")
    assert math.isnan(mean)
