import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from jax.sharding import Mesh
from problems import two_layer

from unlearn_jax import tree
from unlearn_jax.models import MODELS
from unlearn_jax.parallel.mesh import member_mesh
from unlearn_jax.train.ensemble import choose_members, fit_ensemble
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Variables
from unlearn_kernels.target import targeting

MEMBERS = 3
KEYS = jax.random.split(jax.random.key(7), MEMBERS)


@pytest.fixture(scope="module")
def problem():
    learner, data = two_layer()
    return learner, data, np.random.default_rng(0).integers(0, 2, (MEMBERS, 18)) * 1.0


@pytest.fixture(scope="module")
def single(problem):
    """The runs one by one, stacked."""
    learner, data, weights = problem
    run = jax.jit(lambda k, w, d: fit(k, learner, d._replace(weights=w)))
    rows = zip(KEYS, jnp.asarray(weights), strict=True)
    return tree.stack([run(key, row, data) for key, row in rows])


@pytest.mark.parametrize(
    "way",
    [{"members": "vmap", "chunk": 2}, {"members": "loop"}, {"mesh": member_mesh(1)}],
    ids=lambda way: "-".join(way),
)
def test_every_way_of_training_an_ensemble_equals_the_single_runs(problem, single, way):
    learner, data, weights = problem
    trained = fit_ensemble(KEYS, learner, data, weights, **way)
    assert_trees_close(trained, single, rtol=1e-6, atol=1e-8)


def test_on_the_host_the_members_train_one_after_another(problem, single):
    learner, data, weights = problem
    learner = learner._replace(recipe=dataclasses.replace(learner.recipe, loop="host"))
    assert choose_members(learner, data) == "loop"
    trained = fit_ensemble(KEYS, learner, data, weights)
    assert_trees_close(trained, single, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("members", ["vmap", "loop"])
def test_without_weights_all_members_train_on_those_of_the_data(
    problem, monkeypatch, members
):
    def seen(key, learner, data):
        return Variables({"key": jax.random.key_data(key), "w": data.weights}, {})

    learner, data, weights = problem
    monkeypatch.setattr("unlearn_jax.train.ensemble.fit", seen)
    learner = learner._replace(l2=0.125)  # whose program nobody else has compiled
    data = data._replace(weights=jnp.asarray(weights[1]))
    trained = fit_ensemble(KEYS, learner, data, members=members).params
    np.testing.assert_array_equal(trained["w"], weights[[1, 1, 1]])
    np.testing.assert_array_equal(trained["key"], jax.random.key_data(KEYS))


@pytest.mark.parametrize("members", ["vmap", "loop"])
def test_a_second_ensemble_of_the_same_shape_needs_no_compilation(
    problem, monkeypatch, members
):
    traces = []

    def seen(key, learner, data):
        traces.append(1)
        return Variables({"w": data.weights}, {})

    learner, data, _ = problem
    monkeypatch.setattr("unlearn_jax.train.ensemble.fit", seen)
    learner = learner._replace(l2=0.25)
    for seed in (0, 1):
        keys = jax.random.split(jax.random.key(seed), MEMBERS)
        fit_ensemble(keys, learner, data, members=members)
    assert len(traces) == 1


@pytest.mark.parametrize("shape", [(MEMBERS, 17), (MEMBERS + 1, 18), (18,)])
def test_weights_of_another_shape_are_refused(problem, shape):
    learner, data, _ = problem
    with pytest.raises(
        ValueError, match=r"for 3 keys and 18 examples; expected one row"
    ):
        fit_ensemble(KEYS, learner, data, np.ones(shape))


@pytest.mark.parametrize(("count", "chunk"), [(3, None), (8, 3), (7, 4)])
def test_members_that_do_not_divide_over_the_devices_are_refused_before_training(
    problem, monkeypatch, count, chunk
):
    learner, data, _ = problem
    two = Mesh(np.array(2 * jax.devices()[:1]), ("member",))
    trained = []
    monkeypatch.setattr("unlearn_jax.train.ensemble.fit", trained.append)
    keys = jax.random.split(jax.random.key(0), count)
    with pytest.raises(ValueError, match="members do not divide over 2 devices"):
        fit_ensemble(keys, learner, data, chunk=chunk, mesh=two)
    assert not trained


def test_auto_maps_small_models_and_loops_over_large_ones(problem):
    learner, data, _ = problem
    wide = Learner(MODELS["mlp"]((4,), 3, widths=(400, 400)), learner.loss)
    assert choose_members(learner, data) == "vmap"
    assert choose_members(wide, data) == "loop"
    with targeting("gpu"):
        assert choose_members(wide, data) == "vmap"
