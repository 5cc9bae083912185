"""LoGra against block-diagonal empirical-Fisher influence, and its laws."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.attribution.attribution import Evidence
from unlearn_jax.attribution.logra import logra
from unlearn_jax.attribution.output_functions import component
from unlearn_jax.models.model import Model
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Batch, Variables

COUNT, QUERIES, ABSENT, L2, DAMPING = 12, 4, 3, 0.02, 0.1
OUTPUT = component(1)


class Problem:
    """One or two models; training examples of uneven weight, one absent and NaN."""

    def __init__(self, learner, data, *, models=1):
        self.learner = learner
        self.models = jax.vmap(learner.model.init)(
            jax.random.split(jax.random.key(4), models)
        )
        weights = np.random.default_rng(3).uniform(0.5, 2.0, COUNT + QUERIES)
        weights[[ABSENT, COUNT + 1]] = 0
        inputs = data.inputs.copy()
        if inputs.dtype.kind == "f":
            inputs[[ABSENT, COUNT + 1]] = np.nan
        whole = Batch(inputs, data.targets, weights)
        self.train = Batch(*(leaf[:COUNT] for leaf in whole))
        self.queries = Batch(*(leaf[COUNT:] for leaf in whole))
        self.kept = np.flatnonzero(self.train.weights)
        self.asked = np.flatnonzero(self.queries.weights)

    def slopes(self, number, function, batch, rows):
        """For each leaf (rows, size): gradients of one number per example."""
        variables = jax.tree.map(lambda leaf: leaf[number], self.models)
        objective = bind(self.learner.model, variables.stats, self.learner.loss)
        batch = Batch(*(jnp.asarray(leaf[rows]) for leaf in batch))

        def values(params):
            return function(objective.predict(params, batch.inputs), batch.targets)

        found = tiny.quick_jit(jax.jacrev(values))(variables.params)
        return [np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(found)]

    def block_diagonal_effects(self, number):
        """−Σ over leaves of ∇f (F + damping · mean eigenvalue + l2)⁻¹ ∇ℓₙ / W."""
        losses = self.slopes(number, self.learner.loss, self.train, self.kept)
        own = self.slopes(number, OUTPUT, self.queries, self.asked)
        weights = self.train.weights[self.kept]
        total = 0.0
        for f, rows in zip(own, losses, strict=True):
            fisher = (weights[:, None] * rows).T @ rows / weights.sum()
            ridge = DAMPING * np.trace(fisher) / len(fisher) + self.learner.l2
            matrix = fisher + ridge * np.eye(len(fisher))
            total = total - f @ np.linalg.solve(matrix, rows.T) / weights.sum()
        full = np.zeros((QUERIES, COUNT))
        full[np.ix_(self.asked, self.kept)] = total
        return full


def explain(problem, moved=None, **settings):
    """Effects and change by one compiled program."""
    settings = {"damping": DAMPING, "batch_size": 5, "query_batch_size": 3} | settings
    attribution = logra(problem.learner, **settings)

    @jax.jit
    def run(key, evidence, train, queries, moved):
        state = attribution.prepare(key, evidence, train)
        scores = attribution.effects(state, train, queries, OUTPUT)
        if moved is not None:
            moved = attribution.change(state, train, queries, moved)
        return scores, moved

    evidence = Evidence(problem.models)
    key = jax.random.key(7)
    return run(key, evidence, problem.train, problem.queries, moved)


@pytest.fixture(scope="module")
def net():
    data = tiny.examples(count=COUNT + QUERIES)
    return Problem(tiny.learner("mlp", l2=L2), data, models=2)


def table_learner():
    """Token features looked up in a table, summed, and a linear map."""

    def init(key):
        left, right = jax.random.split(key)
        return Variables(
            {
                "table": jax.random.normal(left, (6, 4), jnp.float64),
                "head": jax.random.normal(right, (4, 3), jnp.float64),
            },
            {},
        )

    def features(variables, inputs):
        looked = jnp.tanh(variables.params["table"][inputs])
        return jnp.sum(looked, axis=1)

    def apply(variables, inputs):
        return features(variables, inputs) @ variables.params["head"]

    def apply_train(key, variables, inputs):
        return apply(variables, inputs), variables

    model = Model(init, apply, apply_train, features)
    return tiny.learner("softmax", l2=L2)._replace(model=model)


@pytest.fixture(scope="module")
def expected(net):
    return np.mean([net.block_diagonal_effects(at) for at in range(2)], axis=0)


def test_full_rank_is_block_diagonal_empirical_fisher_influence(net, expected):
    scores, _ = explain(net, rank=64)
    np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-12)


def test_tables_are_served():
    random = np.random.default_rng(0)
    tokens = random.integers(0, 6, (COUNT + QUERIES, 3)).astype(np.int32)
    targets = (np.arange(COUNT + QUERIES) % 3).astype(np.int32)
    data = Batch(tokens, targets, np.ones(COUNT + QUERIES))
    problem = Problem(table_learner(), data)
    moved = random.standard_normal(COUNT)
    scores, change = explain(problem, moved, rank=64, start="pca")
    expected = problem.block_diagonal_effects(0)
    np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(change[:, 1], scores @ moved, rtol=1e-8, atol=1e-11)


def test_change_is_effects_times_change_of_weights(net):
    moved = np.random.default_rng(5).standard_normal(COUNT)
    # Biases above the block are projected by signs.
    settings = {"rank": 2, "max_block": 4, "centred": True}
    scores, change = explain(net, moved, **settings)
    np.testing.assert_allclose(change[:, 1], scores @ moved, rtol=1e-8, atol=1e-11)
    scale = np.abs(scores).max()
    np.testing.assert_allclose(scores @ net.train.weights, 0, atol=1e-9 * scale)
    assert scale > 0


def test_leading_directions_keep_more_than_random_ones(net, expected):
    gaps = {
        start: np.linalg.norm(explain(net, rank=2, start=start)[0] - expected)
        for start in ("random", "pca")
    }
    assert gaps["pca"] < gaps["random"]


def test_bad_settings_are_refused_when_built():
    learner = tiny.learner("softmax")
    with pytest.raises(ValueError, match=r"start 'svd' is unknown.*pca"):
        logra(learner, start="svd")
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        logra(learner, rank=0)
    with pytest.raises(ValueError, match="damping must not be negative"):
        logra(learner, damping=-0.1)
