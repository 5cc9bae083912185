"""Trajectories: the same run as fit, and rates that say how far its pieces move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.models.model import Model
from unlearn_jax.train.fit import fit, fit_watched
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.train.trajectory import fit_trajectories, fit_trajectory
from unlearn_jax.types import Batch, Variables


@pytest.fixture(scope="module")
def run():
    """(learner, data, models, pieces, ends' pieces) of three keys, of a net."""
    learner = tiny.learner("norm", epochs=5)
    data = jax.tree.map(jnp.asarray, tiny.examples())
    data = data._replace(weights=data.weights.at[:7].set(0.0))
    keys = jax.random.split(jax.random.key(1), 3)

    @tiny.quick_jit
    def compiled(keys, data):
        return fit_trajectories(keys, learner, data, points=2)

    return learner, data, keys, *compiled(keys, data)


def test_the_run_is_that_of_fit_and_its_points_those_of_the_watched_run(run):
    learner, data, keys, models, (checkpoints, _, steps) = run
    epochs = {}
    done = fit_watched(
        keys[1],
        learner,
        data,
        watch=lambda state: epochs.update({int(state.epochs_done): state.train}),
    )
    close = {"rtol": 1e-9, "atol": 1e-12}
    assert_trees_close(jax.tree.map(lambda leaf: leaf[1], models), done, **close)
    # Pieces of epochs 1-2 and 3-5; their middles are 1 and 4 rounded up.
    for point, epoch in enumerate((1, 4)):
        kept = jax.tree.map(lambda leaf, at=point: leaf[1, at], checkpoints)
        assert_trees_close(kept, epochs[epoch].variables, **close)
    # 41 examples in batches of 8.
    np.testing.assert_array_equal(steps, [2 * 6, 3 * 6])


def test_the_host_loop_keeps_the_same_points(run):
    learner, data, keys, models, (checkpoints, rates, _) = run
    recipe = Recipe(**{**learner.recipe.__dict__, "loop": "host"})
    done, (kept, same, _) = fit_trajectory(
        keys[2], learner._replace(recipe=recipe), data, points=(2, 5)
    )
    close = {"rtol": 1e-9, "atol": 1e-12}
    assert_trees_close(done, jax.tree.map(lambda leaf: leaf[2], models), **close)
    assert_trees_close(kept, jax.tree.map(lambda leaf: leaf[2], checkpoints), **close)
    np.testing.assert_allclose(same, rates)


def constant_slope():
    """A model whose loss is linear in its parameter: its gradient never changes."""

    def init(key):
        return Variables({"at": jnp.zeros(())}, {})

    def apply(variables, inputs):
        return jnp.ones((inputs.shape[0], 1)) * variables.params["at"]

    def apply_train(key, variables, inputs):
        return apply(variables, inputs), variables

    return Model(init, apply, apply_train, lambda _, inputs: inputs)


@pytest.mark.parametrize(
    ("schedule", "momentum"),
    [("constant", 0.0), ("cosine", 0.9), ("triangle", 0.9), ("exponential", 0.5)],
)
def test_rates_are_the_distance_moved_under_a_constant_gradient(schedule, momentum):
    recipe = Recipe(
        epochs=6,
        batch_size=4,
        learning_rate=0.3,
        momentum=momentum,
        schedule=schedule,
        weight_decay=0.0,
    )
    learner = Learner(constant_slope(), lambda outputs, _: outputs[:, 0], 0.0, recipe)
    data = Batch(jnp.zeros((11, 1)), jnp.zeros(11), jnp.ones(11).at[3].set(0.0))

    @tiny.quick_jit
    def compiled(key, data):
        pieces = fit_trajectory(key, learner, data, points=3, place="end")
        return fit(key, learner, data), *pieces

    done, same, (points, rates, steps) = compiled(jax.random.key(0), data)
    way = -points.params["at"]
    assert float(way[-1]) == -float(done.params["at"]) == -float(same.params["at"])
    np.testing.assert_allclose(np.diff(way, prepend=0.0), rates, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(steps, [6, 6, 6])
    assert float(rates.sum()) > 0.5


def test_float32_stays_and_weights_map():
    learner = tiny.learner("softmax", jnp.float32, epochs=2)
    data = jax.tree.map(jnp.asarray, tiny.examples(np.float32, count=12))
    masks = jnp.ones((2, 12), jnp.float32).at[1, :5].set(0)

    @tiny.quick_jit
    def compiled(key, masks):
        def one(weights):
            return fit_trajectory(
                key, learner, data._replace(weights=weights), points=2
            )

        return jax.vmap(one)(masks)

    models, (checkpoints, rates, steps) = compiled(jax.random.key(0), masks)
    assert {leaf.dtype for leaf in jax.tree.leaves((models, checkpoints))} == {
        np.dtype("float32")
    }
    assert rates.dtype == steps.dtype == np.float32
    np.testing.assert_array_equal(steps, [[2, 2], [1, 1]])


@pytest.mark.parametrize("points", [0, 3, (), (2, 1), (1,), (0, 2)])
def test_pieces_that_do_not_fit_are_refused(points):
    learner = tiny.learner("softmax", epochs=2)
    with pytest.raises(ValueError, match="expected"):
        fit_trajectory(jax.random.key(0), learner, tiny.examples(), points=points)
    with pytest.raises(ValueError, match="'middle' or 'end'"):
        fit_trajectory(
            jax.random.key(0), learner, tiny.examples(), points=1, place="start"
        )
