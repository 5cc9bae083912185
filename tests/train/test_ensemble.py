import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from problems import two_layer

from unlearn_jax import tree
from unlearn_jax.models import MODELS
from unlearn_jax.parallel.mesh import member_mesh
from unlearn_jax.train.ensemble import choose_members, fit_ensemble
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner

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
    [
        {"members": "vmap"},
        {"members": "loop"},
        {"members": "auto"},
        {"members": "vmap", "chunk": 2},
        {"members": "vmap", "chunk": 10},
        {"mesh": member_mesh(1)},
    ],
    ids=lambda way: "-".join(way),
)
def test_every_way_of_training_an_ensemble_equals_the_single_runs(problem, single, way):
    learner, data, weights = problem
    trained = fit_ensemble(KEYS, learner, data, weights, **way)
    assert_trees_close(trained, single, rtol=1e-9, atol=1e-12)


def test_on_the_host_the_members_train_one_after_another(problem, single):
    learner, data, weights = problem
    learner = learner._replace(recipe=dataclasses.replace(learner.recipe, loop="host"))
    assert choose_members(learner, data) == "loop"
    trained = fit_ensemble(KEYS, learner, data, weights)
    assert_trees_close(trained, single, rtol=1e-9, atol=1e-12)


def test_without_weights_all_members_train_on_those_of_the_data(problem, single):
    learner, data, weights = problem
    trained = fit_ensemble(
        KEYS[1:2],
        learner,
        data._replace(weights=jnp.asarray(weights[1])),
        members="loop",
    )
    expected = tree.member(single, 1)
    assert_trees_close(tree.member(trained, 0), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(MEMBERS, 17), (MEMBERS + 1, 18), (18,)])
def test_weights_of_another_shape_are_refused(problem, shape):
    learner, data, _ = problem
    with pytest.raises(
        ValueError, match=r"for 3 keys and 18 examples; expected one row"
    ):
        fit_ensemble(KEYS, learner, data, np.ones(shape))


@pytest.mark.parametrize(("count", "chunk"), [(3, None), (8, 3), (6, 4)])
def test_members_that_do_not_divide_over_the_devices_are_refused_before_training(
    problem, monkeypatch, count, chunk
):
    class Two:
        size = 2

    learner, data, _ = problem
    monkeypatch.setattr("unlearn_jax.train.ensemble.Mesh", Two)
    trained = []
    monkeypatch.setattr("unlearn_jax.train.ensemble.fit", trained.append)
    keys = jax.random.split(jax.random.key(0), count)
    with pytest.raises(ValueError, match="members do not divide over 2 devices"):
        fit_ensemble(keys, learner, data, chunk=chunk, mesh=Two())
    assert not trained


def test_auto_maps_small_models_and_loops_over_large_ones(problem, monkeypatch):
    learner, data, _ = problem
    wide = Learner(MODELS["mlp"]((4,), 3, widths=(200, 200)), learner.loss)
    assert choose_members(learner, data) == "vmap"
    assert choose_members(wide, data) == "loop"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_members(wide, data) == "vmap"
