"""Matching outputs: targets are reached, predictions are the attribution's."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import Evidence
from unlearn_jax.attribution.curvature_influence import influence
from unlearn_jax.data.batch import sample
from unlearn_jax.methods import make_request
from unlearn_jax.methods.datamodel_matching import (
    MatchingState,
    datamodel_matching,
    match_with,
    predicted_outputs,
)
from unlearn_jax.methods.matching import matching
from unlearn_jax.methods.oracle_matching import oracle_matching
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import squared_error

KEY = jax.random.key(3)
STRONG = {
    "epochs": 100,
    "learning_rate": 0.05,
    "batch_size": 16,
    "retain_ratio": 4,
    "forget_copies": 2,
}


@pytest.fixture(scope="module")
def convex(train):
    """Softmax regression with a unique minimum, trained to it; the way to its oracle.

    Few steps of full batches would not reach the minimum, where influence is defined.
    """
    learner = tiny.learner(
        "softmax", l2=0.1, epochs=400, batch_size=64, learning_rate=0.5
    )
    run = tiny.quick_jit(lambda data: fit(KEY, learner, data))
    return learner, run, run(train)


@pytest.fixture(scope="module")
def by_influence(convex, train):
    """DMM by exact influence, its state, and the attribution."""
    learner, _, original = convex
    attribution = influence(learner, inverse="dense", curvature="hessian", damping=0.0)
    evidence = Evidence(jax.tree.map(lambda leaf: leaf[None], original))
    method = match_with(learner, attribution, lambda *_: evidence, **STRONG)
    state = tiny.quick_jit(method.prepare)(KEY, original, train)
    return method, state, attribution


def test_sample_draws_only_what_has_weight_and_gives_the_rest_no_weight(train):
    weights = np.array(train.weights)
    weights[::2] = 0
    part = tiny.quick_jit(lambda data: sample(KEY, data, 40, 10))(
        train._replace(weights=weights)
    )
    assert np.count_nonzero(part.weights) == 10
    drawn = {tuple(row) for row in np.asarray(part.inputs[part.weights > 0])}
    assert len(drawn) == 10
    assert drawn <= {tuple(row) for row in train.inputs[1::2]}


def test_matching_reaches_reachable_targets(convex, train, request_a):
    learner, _, original = convex
    elsewhere = tree.scale(0.5, original.params)
    match = matching(learner, **STRONG)
    targets = lambda batch: (batch.inputs @ elsewhere["kernel"], ())  # noqa: E731
    run = tiny.quick_jit(lambda v, r: match(KEY, v, r, targets)[0])
    moved = run(original, request_a)
    before = tree.norm(tree.subtract(original.params, elsewhere))
    after = tree.norm(tree.subtract(moved.params, elsewhere))
    assert after < 0.02 * before


def test_own_outputs_as_targets_change_nothing(convex, request_a):
    learner, _, original = convex
    match = matching(learner, **STRONG)
    own = lambda batch: (learner.model.apply(original, batch.inputs), ())  # noqa: E731
    moved = tiny.quick_jit(lambda v, r: match(KEY, v, r, own)[0])(original, request_a)
    assert_trees_close(moved, original, rtol=0, atol=1e-6)


def test_prediction_is_the_outputs_plus_the_influence_of_what_is_forgotten(
    convex, by_influence, train, request_a
):
    learner, run, original = convex
    _, state, attribution = by_influence
    predict = tiny.quick_jit(
        lambda s, v, r: predicted_outputs(learner, attribution, s, v, r, train)
    )
    predicted = predict(state, original, request_a)
    apply = learner.model.apply
    truth = apply(run(request_a.retain), train.inputs)
    own = apply(original, train.inputs)
    wrong, without = np.abs(predicted - truth).max(), np.abs(own - truth).max()
    assert wrong < 0.35 * without


def test_matching_by_influence_approaches_the_oracle(
    convex, by_influence, train, request_a
):
    _, run, original = convex
    method, state, _ = by_influence
    moved, _ = tiny.quick_jit(method.forget)(KEY, state, original, request_a)
    oracle = run(request_a.retain)
    before = tree.norm(tree.subtract(original.params, oracle.params))
    after = tree.norm(tree.subtract(moved.params, oracle.params))
    assert after < 0.5 * before


def test_oracle_matching_ends_at_its_own_oracle(convex, request_a):
    learner, run, original = convex
    method = oracle_matching(learner, **STRONG)
    moved, _ = tiny.quick_jit(method.forget)(KEY, (), original, request_a)
    oracle = run(request_a.retain)
    before = tree.norm(tree.subtract(original.params, oracle.params))
    after = tree.norm(tree.subtract(moved.params, oracle.params))
    assert after < 0.1 * before


@pytest.mark.parametrize(
    ("method", "released"),
    [
        (datamodel_matching, (4, 1e-4, 20, 5)),  # the runs on CIFAR-10
        (oracle_matching, (5, 5e-4, 3, 1)),  # the function
    ],
)
def test_the_defaults_are_the_released_ones(method, released):
    names = ("epochs", "learning_rate", "retain_ratio", "forget_copies")
    known = inspect.signature(method).parameters
    assert tuple(known[name].default for name in names) == released


def test_a_second_request_predicts_only_what_is_new(convex, by_influence, train):
    learner, _, original = convex
    method, state, attribution = by_influence
    first = make_request(train, (0, 4, 9))
    both = make_request(train, (0, 4, 9, 20))
    new = make_request(train, (20,))
    _, after = tiny.quick_jit(method.forget)(KEY, state, original, first)
    predict = tiny.quick_jit(
        lambda s, r: predicted_outputs(learner, attribution, s, original, r, train)
    )
    fresh = MatchingState(state.attribution, train)
    own = learner.model.apply(original, train.inputs)
    second = predict(after, both) - own
    alone = predict(fresh, new) - own
    # The attribution stays at the original; the mean loss is over three fewer.
    np.testing.assert_allclose(second * (45 / 48), alone, rtol=0.2, atol=2e-3)


def test_regression_matches_too(train, request_a):
    learner = tiny.learner("mlp", loss=squared_error, epochs=2)
    one_hot = lambda b: b._replace(targets=np.eye(3)[np.asarray(b.targets)])  # noqa: E731
    request = type(request_a)(*(one_hot(part) for part in request_a))
    original = learner.model.init(KEY)
    method = datamodel_matching(learner, epochs=1, learning_rate=1e-3)
    state = tiny.quick_jit(method.prepare)(KEY, original, one_hot(train))
    moved, _ = tiny.quick_jit(method.forget)(KEY, state, original, request)
    assert float(tree.norm(tree.subtract(moved.params, original.params))) > 0
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(moved))


def test_impossible_choices_are_refused_when_the_method_is_built():
    learner = tiny.learner("mlp")
    with pytest.raises(ValueError, match="no attribution 'ekfacs'; choose from"):
        datamodel_matching(learner, attribution="ekfacs")
    with pytest.raises(ValueError, match="which only training itself can keep"):
        datamodel_matching(learner, attribution="metagradient")
    with pytest.raises(ValueError, match="models must be at least 1"):
        datamodel_matching(learner, models=0)
    with pytest.raises(ValueError, match="retain_ratio must be at least 1, got 0"):
        oracle_matching(learner, retain_ratio=0)
