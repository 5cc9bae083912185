"""What training leaves behind: against unrolling by hand, retraining, and the disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import Evidence, Trajectory
from unlearn_jax.attribution.source import source
from unlearn_jax.attribution.trace import (
    fit_traced,
    left_out_loss,
    mean_loss,
    trace_like,
    trace_of,
    unrolled_response,
)
from unlearn_jax.methods import make_request
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.models.model import Model
from unlearn_jax.train import checkpoint
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.train.trajectory import fit_trajectory
from unlearn_jax.types import Batch, Variables

KEY = jax.random.key(3)
GONE = [0, 4, 9]


@pytest.fixture(scope="module")
def traced():
    """(learner, data, unseen, model, trace, pieces) of a small net."""
    learner = tiny.learner("mlp", l2=0.01, weight_decay=0.02)
    data = jax.tree.map(jnp.asarray, tiny.examples())
    unseen = tiny.examples(count=10, seed=4)

    @tiny.quick_jit
    def run(data):
        options = {"held_out": unseen, "labels": "exact", "examples": None}
        model, trace = fit_traced(KEY, learner, data, points=4, segments=2, **options)
        return model, trace, fit_trajectory(KEY, learner, data, points=4)

    model, trace, (same, pieces) = run(data)
    assert_trees_close(model, same, rtol=1e-12)
    return learner, data, unseen, model, trace, pieces


def test_the_trace_holds_mean_gradients_and_the_loss_on_the_unseen(traced):
    learner, data, unseen, model, trace, pieces = traced
    rates = np.asarray(pieces[1])
    np.testing.assert_allclose(trace.rates, rates.reshape(2, 2).sum(axis=1), rtol=1e-6)
    bare = learner._replace(l2=0.0)
    objective = bind(bare.model, {}, bare.loss)
    by_hand = [
        jax.grad(objective.risk)(tree.member(pieces[0], i).params, data)
        for i in range(4)
    ]
    for segment in range(2):
        a, b = (
            rates[2 * segment : 2 * segment + 2] / rates.reshape(2, 2).sum(1)[segment]
        )
        both = by_hand[2 * segment], by_hand[2 * segment + 1]
        mean = jax.tree.map(lambda x, y, a=a, b=b: a * x + b * y, *both)
        assert_trees_close(
            tree.member(trace.slopes, segment), mean, rtol=1e-6, atol=1e-9
        )
    outputs = learner.model.apply(model, unseen.inputs)
    expected = np.mean(learner.loss(outputs, unseen.targets))
    np.testing.assert_allclose(trace.unseen.held_out, expected, rtol=1e-10)


def test_the_response_is_that_of_source(traced):
    """SOURCE's change of the outputs is the derivative along the same direction."""
    learner, data, unseen, model, trace, pieces = traced
    request = make_request(data, GONE)
    found = source(learner, segments=2)

    @tiny.quick_jit
    def run(trace, pieces, data, request):
        kept = jnp.sum(request.retain.weights)
        change, slopes = unrolled_response(learner, trace, request.forget, kept)
        one = jax.tree.map(lambda leaf: leaf[None], (model, pieces[0]))
        evidence = Evidence(one[0], None, Trajectory(one[1], *pieces[1:]))
        state = found.prepare(KEY, evidence, data)
        asked = Batch(unseen.inputs, unseen.targets, jnp.asarray(unseen.weights))
        move = request.retain.weights - data.weights
        predicted = found.change(state, data, asked, move)

        def outputs(params):
            return learner.model.apply(model._replace(params=params), unseen.inputs)

        _, along = jax.jvp(outputs, (model.params,), (change,))
        return along, predicted, slopes

    along, predicted, slopes = run(trace, pieces, data, request)
    np.testing.assert_allclose(along, predicted, rtol=1e-6, atol=1e-9)
    # What is left of the mean gradients is the retain set's.
    last = tree.member(pieces[0], 3), tree.member(pieces[0], 2)
    rates = np.asarray(pieces[1])[2:]
    objective = bind(learner.model, {}, learner.loss)
    means = [risk_gradient(objective, at.params, request.retain) for at in last[::-1]]
    a, b = rates / rates.sum()
    kept = jax.tree.map(lambda x, y: a * x + b * y, *means)
    assert_trees_close(tree.member(slopes, 1), kept, rtol=1e-6, atol=1e-9)


def regression():
    """A linear map with squared error, for which EK-FAC is exact."""

    def init(key):
        return Variables({"kernel": jax.random.normal(key, (3, 2))}, {})

    def apply(variables, inputs):
        return inputs @ variables.params["kernel"]

    def apply_train(key, variables, inputs):
        return apply(variables, inputs), variables

    return Model(init, apply, apply_train, lambda _, inputs: inputs)


def test_the_response_is_what_training_without_would_have_given():
    """Full batches of a linear map, for whose curvature EK-FAC is exact."""
    random = np.random.default_rng(1)
    count = 200
    x = random.normal(size=(count, 3)) * np.array([1.5, 0.7, 0.2])
    y = x @ random.normal(size=(3, 2)) + random.normal(size=(count, 2))
    data = Batch(*map(jnp.asarray, (x, y, np.ones(count))))
    recipe = Recipe(60, count, 0.02, momentum=0.5, weight_decay=0.02)
    learner = Learner(regression(), squared_error, 0.0, recipe)

    @tiny.quick_jit
    def run(data, forget, retain):
        options = {"labels": "exact", "examples": None, "held_out": data}
        model, trace = fit_traced(KEY, learner, data, points=20, segments=10, **options)
        kept = jnp.sum(retain.weights)
        change, _ = unrolled_response(learner, trace, forget, kept)
        oracle = fit(KEY, learner, retain)
        return change, tree.subtract(oracle.params, model.params)

    gaps = []
    for size in (4, 8):  # as long as their padding
        request = make_request(data, np.arange(size))
        found, true = run(data, *request)
        gaps.append(float(tree.norm(tree.subtract(found, true)) / tree.norm(true)))
    assert max(gaps) < 0.1


def test_a_tenth_is_left_out_and_never_seen():
    """Labels that say nothing: what is learned by heart does not help elsewhere."""
    learner = tiny.learner("mlp", epochs=60, learning_rate=0.3)
    data = tiny.examples()
    noise = np.random.default_rng(0).permutation(np.asarray(data.targets))
    data = jax.tree.map(jnp.asarray, data._replace(targets=noise))

    @tiny.quick_jit
    def run(keys, data):
        models = jax.vmap(lambda key: fit(key, learner, data))(keys)
        known = jax.vmap(lambda model: mean_loss(learner, model, data))(models)
        held = jax.vmap(lambda key: left_out_loss(key, learner, data))(keys)
        return held, known

    held, known = run(jax.random.split(KEY, 8), data)
    assert known.mean() < 0.9 < np.log(3) < held.mean()


def test_a_trace_is_found_again_on_disk(traced, tmp_path):
    learner, data, unseen, model, trace, _ = traced
    checkpoint.save(tmp_path / "trace", (model, trace))
    options = {"points": 4, "held_out": unseen, "labels": "exact", "examples": None}
    like = trace_like(learner, data, segments=2, **options)
    found = checkpoint.load(tmp_path / "trace", like)
    assert_trees_close(found, (model, trace), rtol=0, atol=0)
    other = trace_like(learner, data, segments=4, **options)
    with pytest.raises(checkpoint.CheckpointError, match="another configuration"):
        checkpoint.load(tmp_path / "trace", other)


def test_what_does_not_fit_is_refused(traced):
    learner, data, _, model, _, pieces = traced
    adam = learner._replace(recipe=Recipe(optimizer="adam"))
    with pytest.raises(ValueError, match="rates times curvature have no meaning"):
        trace_of(KEY, adam, model, pieces, data)
    with pytest.raises(ValueError, match="4 points for 3 segments"):
        trace_of(KEY, learner, model, pieces, data, segments=3)
