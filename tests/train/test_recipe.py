import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from asserts import assert_trees_close

from unlearn_jax.train.recipe import SCHEDULES, Recipe, optimizer

PARAMS = {"w": jnp.array([1.0, -2.0])}
SLOPE = {"w": jnp.array([0.5, 4.0])}


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("epochs", 0, "epochs must be at least 1, got 0"),
        ("epochs", 2.7, "epochs must be a whole number, got 2.7"),
        ("epochs", True, "epochs must be a whole number, got True"),
        ("weight_decay", float("inf"), "weight_decay must be a finite number, got inf"),
        ("momentum", "much", "momentum must be a number, got 'much'"),
        ("batch_size", -3, "batch_size must be at least 1, got -3"),
        ("learning_rate", 0.0, "learning_rate must be positive, got 0.0"),
        (
            "learning_rate",
            float("nan"),
            "learning_rate must be a finite number",
        ),
        ("momentum", -0.1, "momentum must not be negative, got -0.1"),
        ("weight_decay", -1e-4, "weight_decay must not be negative, got -0.0001"),
        ("optimizer", "adamw", "optimizer 'adamw' is unknown; choose from sgd, adam"),
        ("schedule", "linear", "schedule 'linear' is unknown; choose from constant, c"),
        ("augment", "flip", "augment 'flip' is unknown; choose from none, flip_crop"),
        ("loop", "cpu", "loop 'cpu' is unknown; choose from auto, device, host"),
    ],
)
def test_impossible_values_are_refused_when_the_recipe_is_built(field, value, sentence):
    recipe = copy.copy(Recipe())  # the type checks of the tests would refuse it first
    object.__setattr__(recipe, field, value)
    with pytest.raises(ValueError, match=sentence):
        recipe.__post_init__()


def test_recipes_are_checked_without_being_asked():
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        Recipe(epochs=0)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        dataclasses.replace(Recipe(), epochs=0)


def test_a_recipe_is_a_value_that_can_be_looked_up():
    assert Recipe(epochs=3) == Recipe(epochs=3)
    assert len({Recipe(), Recipe(epochs=3), Recipe(epochs=3)}) == 2
    with pytest.raises(AttributeError):
        Recipe().epochs = 2


@pytest.mark.parametrize(
    ("name", "progress", "rate"),
    [
        ("constant", 0.0, 1.0),
        ("constant", 1.0, 1.0),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("triangle", 0.0, 0.0),
        ("triangle", 0.1, 0.5),
        ("triangle", 0.2, 1.0),
        ("triangle", 0.6, 0.5),
        ("triangle", 1.0, 0.0),
    ],
)
def test_schedules_start_peak_and_end_where_they_should(name, progress, rate):
    assert abs(float(SCHEDULES[name](jnp.asarray(progress))) - rate) < 1e-6


def rates(schedule, steps):
    """Step sizes that the optimiser really takes."""
    transformation = optimizer(
        Recipe(schedule=schedule, learning_rate=0.5, momentum=0.0, weight_decay=0.0),
        steps,
    )
    state, taken = transformation.init(PARAMS), []
    for _ in range(steps + 1):
        updates, state = transformation.update(SLOPE, state, PARAMS)
        taken.append(-float(updates["w"][0] / SLOPE["w"][0]))
    return taken


def test_the_schedule_is_stretched_over_the_whole_run():
    np.testing.assert_allclose(rates("constant", 2), [0.5] * 3, rtol=1e-6)
    np.testing.assert_allclose(
        rates("cosine", 4), 0.25 * (1 + np.cos(np.pi * np.arange(5) / 4)), atol=1e-6
    )
    np.testing.assert_allclose(
        rates("triangle", 5), [0, 0.5, 0.375, 0.25, 0.125, 0], atol=1e-6
    )


def test_adam_is_the_one_of_optax():
    recipe = Recipe(optimizer="adam", schedule="constant", weight_decay=0.0)
    ours, theirs = optimizer(recipe, 10), optax.adam(recipe.learning_rate)
    known = (ours.init(PARAMS), theirs.init(PARAMS))
    for _ in range(2):
        got, first = ours.update(SLOPE, known[0], PARAMS)
        expected, second = theirs.update(SLOPE, known[1], PARAMS)
        known = (first, second)
        assert_trees_close(got, expected, rtol=1e-6)


def test_weight_decay_adds_the_parameter_to_the_gradient():
    recipe = Recipe(
        learning_rate=0.5, momentum=0.0, weight_decay=0.25, schedule="constant"
    )
    transformation = optimizer(recipe, 1)
    updates, _ = transformation.update(SLOPE, transformation.init(PARAMS), PARAMS)
    by_hand = jax.tree.map(lambda g, w: -0.5 * (g + 0.25 * w), SLOPE, PARAMS)
    assert_trees_close(updates, by_hand, rtol=1e-12)
