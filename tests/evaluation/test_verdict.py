import numpy as np
import pytest

from unlearn_jax.evaluation.verdict import chance_level, verdict


def words(**changes):
    numbers = {
        "relative_change": 0.1,
        "test_accuracy": 90.0,
        "chance": 10.0,
        "examples": 900,
        "gaps": {"accuracy": 3.0, "mia_loss": -0.01},
        "half_widths": {"accuracy": 2.0, "mia_loss": 0.02},
    }
    return verdict(**{**numbers, **changes})


def test_an_ordinary_row_gets_no_word():
    assert words() == ()


def test_only_exactly_no_change_is_called_so():
    assert words(relative_change=0.0) == ("changed nothing",)
    assert words(identical_outputs=True) == ("changed nothing",)
    assert words(relative_change=1e-12) == ()


def test_destroyed_is_within_four_binomial_errors_of_chance():
    # chance 10 % of 900 examples: one error is 1 %
    assert words(test_accuracy=14.0) == ("destroyed",)
    assert words(test_accuracy=14.1) == ()
    assert words(test_accuracy=0.0) == ("destroyed",)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_is_destroyed(broken):
    assert words(test_accuracy=broken) == ("destroyed",)
    assert words(relative_change=broken) == ("destroyed",)


def test_without_classes_only_what_is_not_finite_is_destroyed():
    assert words(test_accuracy=None) == ()
    assert words(test_accuracy=None, relative_change=np.nan) == ("destroyed",)


def test_inside_the_floor_needs_every_core_metric():
    near = {"accuracy": -2.0, "mia_loss": 0.02}
    assert words(gaps=near) == ("inside the floor",)
    assert words(gaps={**near, "mia_loss": 0.03}) == ()
    assert words(gaps={**near, "mia_loss": np.nan}) == ()
    assert words(gaps={}, half_widths={}) == ()


def test_an_infinite_floor_says_nothing():
    near = {"accuracy": 0.0, "mia_loss": 0.0}
    assert words(gaps=near, half_widths={"accuracy": np.inf, "mia_loss": 1.0}) == ()


def test_metrics_without_a_floor_are_refused():
    with pytest.raises(ValueError, match="same metrics"):
        words(half_widths={"accuracy": 2.0})


def test_chance_is_the_largest_class():
    assert chance_level(np.array([0, 1, 1, 2])) == 50.0
