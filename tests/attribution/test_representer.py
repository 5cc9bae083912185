"""Last-layer attributions: the representer theorem, derivatives, refits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.attribution.attribution import Evidence
from unlearn_jax.attribution.output_functions import component, margin
from unlearn_jax.attribution.representer import representer
from unlearn_jax.train.loss import squared_error
from unlearn_jax.types import Batch

L2 = 0.05


@pytest.fixture(scope="module")
def data():
    train = jax.tree.map(jnp.asarray, tiny.examples(count=24))
    weights = jnp.asarray(np.random.default_rng(2).uniform(0.5, 1.5, 24))
    train = train._replace(weights=weights.at[5].set(0.0))
    queries = jax.tree.map(jnp.asarray, tiny.examples(count=6, seed=4))
    return train, queries


@pytest.fixture(scope="module")
def classifier(data):
    learner = tiny.learner("mlp")
    return (
        learner,
        jax.vmap(learner.model.init)(jax.random.split(jax.random.key(1), 2)),
        *data,
    )


@pytest.fixture(scope="module")
def regressor(data):
    train, queries = data
    learner = tiny.learner("mlp", loss=squared_error)
    targets = jnp.asarray(np.random.default_rng(3).normal(size=(24, 3)))
    train = train._replace(targets=targets)
    queries = queries._replace(targets=targets[:6])
    models = jax.vmap(learner.model.init)(jax.random.split(jax.random.key(1), 2))
    return learner, models, train, queries


def compiled(learner, output_fn, **options):
    attribution = representer(learner, l2=L2, **options)

    @tiny.quick_jit
    def run(models, train, queries):
        state = attribution.prepare(jax.random.key(0), Evidence(models), train)
        return state, attribution.effects(state, train, queries, output_fn)

    return run


def features(learner, models, i, inputs):
    variables = jax.tree.map(lambda leaf: leaf[i], models)
    rows = np.asarray(learner.model.features(variables, inputs))
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_terms_of_the_examples_add_up_to_the_prediction(kind, request):
    """The representer theorem, which holds at the minimum only."""
    learner, models, train, queries = request.getfixturevalue(kind)
    state, effects = compiled(learner, component(1))(models, train, queries)
    assert state.heads.shape == (2, tiny.WIDTH + 1, 3)
    predictions = [
        features(learner, models, i, queries.inputs) @ state.heads[i] for i in range(2)
    ]
    total = effects @ train.weights
    np.testing.assert_allclose(total, np.mean(predictions, axis=0)[:, 1], rtol=1e-7)
    assert not np.any(effects[:, 5])


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_influence_is_the_derivative_of_the_head_fitted_anew(kind, request):
    learner, models, train, queries = request.getfixturevalue(kind)
    models = jax.tree.map(lambda leaf: leaf[:1], models)
    output_fn = margin if kind == "classifier" else component(0)
    run = compiled(learner, output_fn, kind="influence", tol=1e-12, batch_size=7)
    _, effects = run(models, train, queries)
    asked = features(learner, models, 0, queries.inputs)
    step = 1e-4

    def outputs(n, change):
        weights = train.weights.at[n].add(change)
        state, _ = run(models, train._replace(weights=weights), queries)
        return output_fn(jnp.asarray(asked @ state.heads[0]), queries.targets)

    for n in (0, 11):
        truth = (outputs(n, step) - outputs(n, -step)) / (2 * step)
        np.testing.assert_allclose(effects[:, n], truth, rtol=1e-5, atol=1e-9)


def test_leave_one_out_equals_refits(regressor):
    learner, models, train, queries = regressor
    models = jax.tree.map(lambda leaf: leaf[:1], models)
    run = compiled(learner, component(2), kind="leave_one_out")
    _, effects = run(models, train, queries)
    rows = features(learner, models, 0, train.inputs)
    asked = features(learner, models, 0, queries.inputs)
    weights, targets = np.asarray(train.weights), np.asarray(train.targets)

    def predict(weights):
        gram = rows.T @ (weights[:, None] * rows)
        gram += L2 * np.sum(train.weights) * np.eye(len(gram))
        return asked @ np.linalg.solve(gram, rows.T @ (weights[:, None] * targets))

    full = predict(weights)
    for n in (0, 5, 17):
        without = predict(weights * (np.arange(24) != n))
        np.testing.assert_allclose(
            -weights[n] * effects[:, n], (without - full)[:, 2], rtol=1e-8, atol=1e-12
        )


def test_newton_reaches_the_minimum_from_badly_scaled_features(classifier):
    learner, models, train, queries = classifier
    far = train._replace(inputs=30 * train.inputs)
    state, _ = compiled(learner, margin)(models, far, queries)
    rows = features(learner, models, 0, far.inputs)
    head, weights = np.asarray(state.heads[0]), np.asarray(far.weights)
    logits = rows @ head
    chance = np.exp(logits - logits.max(1, keepdims=True))
    chance /= chance.sum(1, keepdims=True)
    error = chance - np.eye(3)[np.asarray(far.targets)]
    slope = rows.T @ (weights[:, None] * error) / weights.sum() + L2 * head
    assert np.max(np.abs(slope)) < 1e-9


def test_what_cannot_be_is_refused(classifier):
    learner, models, train, _ = classifier
    for wrong, told in (
        ({"kind": "exact"}, "kind 'exact' is unknown"),
        ({"kind": "leave_one_out"}, "squared_error alone"),
        ({"l2": 0.0}, "expected a positive number"),
        ({"newton_steps": 0}, "newton_steps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=told):
            representer(learner, **wrong)
    cubes = learner._replace(
        model=learner.model._replace(features=lambda v, x: x[:, None, :])
    )
    with pytest.raises(ValueError, match="one vector per example"):
        representer(cubes).prepare(jax.random.key(0), Evidence(models), Batch(*train))
