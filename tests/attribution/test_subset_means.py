"""Empirical leave-one-out: two samples, their error, and true retraining."""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import tiny
from scipy import stats

from unlearn_jax.attribution.attribution import Evidence, Subsets
from unlearn_jax.attribution.output_functions import component
from unlearn_jax.attribution.subset_means import (
    empirical_leave_one_out,
    mean_shares,
    subset_means,
)
from unlearn_jax.types import Batch, Variables

compare = tiny.quick_jit(subset_means)


def test_value_and_error_equal_a_two_sample_test():
    random = np.random.default_rng(0)
    masks = (random.random((15, 6)) < 0.5).astype(np.float64)
    masks[:, 0] = np.arange(15) == 3  # in a single member
    outputs = 100 + random.normal(size=(15, 4))
    found = compare(masks, outputs)
    for n in range(6):
        inside = masks[:, n] > 0
        test = stats.ttest_ind(outputs[inside], outputs[~inside], equal_var=True)
        difference = outputs[inside].mean(0) - outputs[~inside].mean(0)
        np.testing.assert_allclose(found.value[:, n], difference, rtol=1e-10)
        error = difference / test.statistic
        np.testing.assert_allclose(found.stderr[:, n], error, rtol=1e-8)


def test_what_all_or_no_members_hold_has_no_effect_and_no_certainty():
    masks = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0]], np.int8)
    outputs = np.arange(8.0).reshape(4, 2)
    found = compare(masks, outputs)
    assert not np.any(found.value[:, :2])
    assert np.all(np.isinf(found.stderr[:, :2]))
    assert np.all(np.isfinite(found.stderr[:, 2]))
    np.testing.assert_allclose(found.value[:, 2], -2.0)
    assert np.all(np.isinf(subset_means(masks[:2], outputs[:2]).stderr))
    shares = mean_shares(jnp.asarray(masks, jnp.float64))
    np.testing.assert_allclose(jnp.sum(shares, axis=0), 0, atol=1e-15)


def test_errors_cover_the_truth():
    """Additive outputs: over 500 targets the standardised errors have spread one."""
    random = np.random.default_rng(1)
    m, n, q = 40, 3, 500
    masks = np.array([[i >> j & 1 for j in range(n)] for i in range(m)], np.float64)
    truth = random.normal(size=(n, q)) * 0.01
    outputs = masks @ truth + random.normal(size=(m, q))
    found = compare(masks, outputs)
    scores = np.asarray((found.value - truth.T) / found.stderr)
    assert abs(np.std(scores) - 1) < 0.1
    assert abs(np.mean(scores)) < 4 / np.sqrt(scores.size)


def test_members_that_lack_one_example_each_give_retraining_itself():
    learner, data, solve = problems.ridge(n=8)
    masks, weights = 1 - np.eye(8), 1 + np.arange(8) % 3 / 2
    data = data._replace(weights=jnp.asarray(weights))
    full = solve(weights)
    params = [jax.tree.map(np.asarray, solve(weights * row)) for row in masks]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *params)
    models = jax.tree.map(lambda leaf: leaf[None], Variables(full, {}))
    evidence = Evidence(
        models, ensemble=Subsets(jnp.asarray(masks), Variables(stacked, {}))
    )
    queries = Batch(data.inputs[:3] + 0.5, data.targets[:3], jnp.ones(3))
    attribution = empirical_leave_one_out(learner, reference="models")

    @tiny.quick_jit
    def run(evidence, train, queries, change):
        state = attribution.prepare(jax.random.key(0), evidence, train)
        effects = attribution.effects(state, train, queries, component(1))
        return effects, attribution.change(state, train, queries, change)

    effects, change = run(evidence, data, queries, -weights[5] * jnp.eye(8)[5])

    def outputs(params):
        return learner.model.apply(Variables(params, {}), queries.inputs)

    truth = np.stack([outputs(full) - outputs(p) for p in params], axis=1)
    by_weight = truth[:, :, 1] / weights[None]
    np.testing.assert_allclose(effects, by_weight, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(change, -truth[:, 5], rtol=1e-9, atol=1e-13)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="one row per member"):
        subset_means(np.ones((3, 4)), np.ones((2, 5)))
    with pytest.raises(ValueError, match="reference 'all' is unknown"):
        empirical_leave_one_out(tiny.learner("softmax"), reference="all")
    with pytest.raises(ValueError, match="batch_size must be"):
        empirical_leave_one_out(tiny.learner("softmax"), batch_size=0)
