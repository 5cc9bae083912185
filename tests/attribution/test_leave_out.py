"""Leave-out of ridge regression: refits, influence functions, padding, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.attribution import leave_out
from unlearn_jax.attribution.influence import (
    influence_on_outputs,
    influence_on_parameters,
)
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.operator import dense
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

COUNT, WIDTH, OUTPUTS, L2 = 500, 24, 3, 0.3


def refit(features, targets, weights, l2=L2):
    """Ridge by least squares on rows with √l2 I below: no normal equations."""
    root = np.sqrt(weights)[:, None]
    width = features.shape[1]
    stacked = np.concatenate([root * features, np.sqrt(l2) * np.eye(width)])
    goal = np.concatenate([root * targets, np.zeros((width, targets.shape[1]))])
    return np.linalg.lstsq(stacked, goal, rcond=None)[0]


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    features = random.normal(size=(COUNT, WIDTH))
    features[:, -1] = 1.0
    features[7] *= 30.0  # leverage near one
    targets = features @ random.normal(size=(WIDTH, OUTPUTS))
    targets += random.normal(size=targets.shape)
    return features, targets, random.uniform(0.2, 2.0, COUNT)


@pytest.fixture(scope="module")
def refits(data):
    """All 500 fits without one row."""
    features, targets, weights = data
    kept = np.tile(weights, (COUNT, 1)) * (1 - np.eye(COUNT))
    return np.stack([refit(features, targets, row) for row in kept])


@pytest.fixture(scope="module")
def wide():
    """Ten rows of thirty features, a few queries, weights."""
    random = np.random.default_rng(4)
    parts = (random.normal(size=s) for s in ((10, 30), (10, 1), (3, 30)))
    return *parts, random.uniform(0.5, 2.0, 10)


@pytest.fixture(scope="module")
def one_by_one():
    @tiny.quick_jit
    def run(features, targets, queries, weights, l2):
        given = {"l2": l2, "weights": weights}
        return (
            leave_out.leave_one_out(features, targets, **given),
            leave_out.leverages(features, **given),
            leave_out.leave_one_out_effects(features, targets, queries, **given),
        )

    return run


def few(data, count=40):
    features, targets, weights = data
    return features[:count, :6], targets[:count], weights[:count]


def test_leave_one_out_equals_500_refits(data, refits):
    features, targets, weights = data
    got = leave_out.leave_one_out(
        features, targets, l2=L2, weights=weights, batch_size=64
    )
    want = np.einsum("nf,nfk->nk", features, refits)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def test_effects_equal_500_refits(data, refits):
    features, targets, weights = data
    queries = np.random.default_rng(1).normal(size=(5, WIDTH))
    effects = leave_out.leave_one_out_effects(
        features, targets, queries, l2=L2, weights=weights
    )
    got = effects.reach[:, :, None] * effects.pull[None]
    moved = refits - refit(features, targets, weights)[None]
    want = np.einsum("qf,nfk->qnk", queries, moved)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def test_leverages_are_the_diagonal_of_the_hat_matrix(data):
    features, _, weights = data
    got = leave_out.leverages(features, l2=L2, weights=weights, batch_size=128)
    root = np.sqrt(weights)[:, None] * features
    hat = root @ np.linalg.solve(root.T @ root + L2 * np.eye(WIDTH), root.T)
    np.testing.assert_allclose(got, np.diag(hat), rtol=1e-11)
    # Without l2 the trace counts the columns.
    free = leave_out.leverages(features, l2=0.0)
    np.testing.assert_allclose(jnp.sum(free), WIDTH, rtol=1e-12)


@pytest.mark.parametrize("l2", [1e-12, 1e-8, 1e-3, 1e6])
def test_fewer_rows_than_features_lose_no_digits(wide, one_by_one, l2):
    features, targets, queries, weights = wide
    got, h, effects = one_by_one(features, targets, queries, weights, l2)
    np.testing.assert_array_equal(effects.leverage, h)
    root = np.sqrt(weights)[:, None]
    gram = (root * features) @ (root * features).T

    def fitted(kept):
        """Without a difference: least norm, damped, on the rows kept."""
        matrix = gram[np.ix_(kept, kept)] + l2 * np.eye(len(kept))
        dual = np.linalg.solve(matrix, (root * targets)[kept])
        return (root * features)[kept].T @ dual

    everything = np.arange(len(features))
    moved = queries @ fitted(everything)
    exact = effects.reach[:, :, None] * effects.pull[None]
    for n in everything:
        without = fitted(np.delete(everything, n))
        np.testing.assert_allclose(got[n], features[n] @ without, 1e-11, 1e-14)
        want = queries @ without - moved
        np.testing.assert_allclose(exact[:, n], want, rtol=1e-7, atol=1e-11)
    values, vectors = np.linalg.eigh(gram)
    want = vectors**2 @ (values / (values + l2))
    np.testing.assert_allclose(h, want, rtol=1e-12)


def test_the_two_roads_meet(wide, one_by_one):
    # Absent rows change nothing, and make the features the fewer.
    features, targets, queries, weights = wide
    short = one_by_one(features, targets, queries, weights, L2)
    absent = np.full((25, features.shape[1]), np.nan)
    parts = (features, absent), (targets, absent[:, :1]), (weights, np.zeros(25))
    features, targets, weights = map(np.concatenate, parts)
    long = one_by_one(features, targets, queries, weights, L2)
    few = one_by_one(features[:15], targets[:15], queries, weights[:15], L2)
    for count, parts in ((35, long), (15, few)):
        (got, h, effects), (want, level, wanted) = parts, short
        np.testing.assert_allclose(got[:10], want, rtol=1e-10)
        np.testing.assert_allclose(h[:10], level, rtol=1e-12)
        np.testing.assert_allclose(effects.reach[:, :10], wanted.reach, rtol=1e-9)
        np.testing.assert_allclose(effects.pull[:10], wanted.pull, rtol=1e-10)
        assert got.shape == (count, 1)
        assert not np.any(got[10:])
        assert not np.any(h[10:])
        assert not np.any(effects.reach[:, 10:])
        assert not np.any(effects.pull[10:])


def test_sets_equal_refits(data):
    features, targets, weights = data
    queries = np.random.default_rng(2).normal(size=(4, WIDTH))
    # Fewer rows than columns, more rows than columns, and padding between.
    sets = np.full((3, 60), -1)
    sets[0, :3] = 7, 0, 499
    sets[1] = np.arange(100, 160)
    sets[2, 5:25] = np.arange(20)

    @tiny.quick_jit
    def three(features, targets, weights, queries):
        given = {"l2": L2, "weights": weights, "set_batch_size": 2}
        return (
            leave_out.leave_set_out(features, targets, sets, queries=queries, **given),
            leave_out.leave_set_out(features, targets, sets, **given),
            leave_out.leave_set_out_weights(features, targets, sets, **given),
        )

    at_queries, at_members, solutions = three(features, targets, weights, queries)
    assert at_queries.shape == (3, 4, OUTPUTS)
    for row, members in enumerate(sets):
        real = members[members >= 0]
        kept = weights.copy()
        kept[real] = 0
        want = refit(features, targets, kept)
        np.testing.assert_allclose(solutions[row], want, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(at_queries[row], queries @ want, rtol=1e-10)
        own = np.asarray(at_members[row])
        np.testing.assert_allclose(own[members >= 0], features[real] @ want, rtol=1e-9)
        assert not np.any(own[members < 0])


def test_a_set_of_one_is_leave_one_out(data):
    features, targets, weights = few(data)
    sets = np.arange(40)[:, None]

    @tiny.quick_jit
    def three(features, targets, weights):
        given = {"l2": L2, "weights": weights}
        return (
            leave_out.leave_one_out(features, targets, **given),
            leave_out.leave_set_out(features, targets, sets, **given),
            leave_out.leave_set_out(features, targets, [3], **given),
        )

    one, got, alone = three(features, targets, weights)
    np.testing.assert_allclose(got[:, 0], one, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(alone[0], one[3], rtol=1e-10)


@pytest.fixture(scope="module")
def influence(data):
    """Influence on a mean risk whose l2 is that of the sum, and the ridge solution."""
    features, targets, weights = few(data)
    batch = Batch(*map(jnp.asarray, (features, targets, weights)))
    objective = Objective(
        lambda params, inputs: inputs @ params["weight"],
        squared_error,
        L2 / float(weights.sum()),
    )
    params = {"weight": jnp.asarray(refit(features, targets, weights))}

    def inverse_of(params, batch):
        matrix = dense(hessian(objective, params, batch))

        def inverse(vector):
            flat = jnp.linalg.solve(matrix, vector["weight"].reshape(-1))
            return {"weight": flat.reshape(vector["weight"].shape)}

        return inverse

    return objective, params, batch, inverse_of


def test_influence_is_the_exact_change_times_one_minus_the_leverage(influence):
    objective, params, batch, inverse_of = influence
    queries = Batch(batch.inputs[:5] + 0.2, batch.targets[:5], jnp.ones(5))

    @tiny.quick_jit
    def scores(params, batch, queries):
        return influence_on_outputs(
            objective,
            params,
            batch,
            queries,
            lambda outputs, _: outputs[:, 1],
            inverse_of(params, batch),
        )

    effects = leave_out.leave_one_out_effects(
        batch.inputs, batch.targets, queries.inputs, l2=L2, weights=batch.weights
    )
    predicted = -np.asarray(scores(params, batch, queries))
    predicted *= np.asarray(batch.weights)[None]
    # A row that leaves a mean takes its share of l2 with it: that part is no loss's.
    features, weights = np.asarray(batch.inputs), np.asarray(batch.weights)
    gram = features.T @ (weights[:, None] * features) + L2 * np.eye(6)
    shrink = queries.inputs @ np.linalg.solve(gram, params["weight"][:, 1])
    predicted -= L2 * np.outer(shrink, weights) / weights.sum()
    exact = np.asarray(effects.reach) * np.asarray(effects.pull)[:, 1]
    kept = 1 - np.asarray(effects.leverage)
    assert kept.min() < 0.3  # the law has something to say
    np.testing.assert_allclose(predicted / kept, exact, rtol=1e-9, atol=1e-13)


def test_influence_on_parameters_obeys_the_same_law(influence):
    objective, params, batch, inverse_of = influence
    at = 7
    solution = leave_out.leave_set_out_weights(
        batch.inputs, batch.targets, [at], l2=L2, weights=batch.weights
    )

    @tiny.quick_jit
    def moved(params, batch):
        inverse = inverse_of(params, batch)
        change = jnp.zeros(40).at[at].set(-batch.weights[at])
        total = influence_on_parameters(objective, params, batch, change, inverse)
        share = batch.weights[at] * objective.l2 / jnp.sum(batch.weights)
        return total["weight"] - share * inverse(params)["weight"]

    h = leave_out.leverages(batch.inputs, l2=L2, weights=batch.weights)[at]
    exact = solution - params["weight"]
    np.testing.assert_allclose(
        moved(params, batch) / (1 - h), exact, rtol=1e-9, atol=1e-13
    )


def test_weight_zero_hides_what_a_row_holds(data):
    features, targets, weights = few(data)
    weights = weights.copy()
    weights[[0, 39]] = 0
    broken_features, broken_targets = features.copy(), targets.copy()
    broken_features[[0, 39]] = np.nan
    broken_targets[[0, 39]] = np.inf
    kept = slice(1, 39)

    @tiny.quick_jit
    def three(features, targets, weights):
        given = {"l2": L2, "weights": weights, "batch_size": 16}
        return (
            leave_out.leave_one_out(features, targets, **given),
            leave_out.leave_one_out_effects(features, targets, features[3:6], **given),
            leave_out.leave_set_out(features, targets, [0, 5], **given),
        )

    got, effects, out = three(broken_features, broken_targets, weights)
    want = three(features[kept := slice(1, 39)], targets[kept], weights[kept])[0]
    np.testing.assert_allclose(got[kept], want, rtol=1e-11)
    assert not np.any(np.asarray(got)[[0, 39]])
    assert not np.any(np.asarray(effects.reach)[:, [0, 39]])
    assert all(np.all(np.isfinite(leaf)) for leaf in effects)
    np.testing.assert_allclose(out[1], got[5], rtol=1e-10)
    assert not np.any(np.asarray(out)[0])


def test_jit_and_vmap_over_l2_and_targets(data):
    features, targets, _ = few(data)
    stacked = jnp.stack([targets, targets[::-1]])
    l2 = jnp.array([0.1, 2.0])
    both = tiny.quick_jit(
        jax.vmap(lambda y, c: leave_out.leave_set_out(features, y, [2, 9], l2=c))
    )(stacked, l2)
    for row in range(2):
        want = leave_out.leave_set_out(features, stacked[row], [2, 9], l2=l2[row])
        np.testing.assert_allclose(both[row], want, rtol=1e-10)


def test_dtype_is_kept(data):
    features, targets, _ = (part.astype(np.float32) for part in few(data))

    @tiny.quick_jit
    def both(features, targets):
        return (
            leave_out.leave_one_out(features, targets, l2=L2),
            leave_out.leave_set_out(features, targets, [1, 2], l2=L2),
        )

    got, sets = both(features, targets)
    assert got.dtype == sets.dtype == jnp.float32
    want = both(*few(data)[:2])[0]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "at least one row"),
        ([[0, 1], [-1, -1]], "only padding"),
        ([3, 40], "run from 3 to 40"),
        ([-2, 3], "run from -2"),
        ([3, 5, 3], "names a row twice"),
        ([0.0, 1.0], "integer indices"),
        ([True, False], "integer indices"),
        ([[[1]]], "integer indices"),
    ],
)
def test_sets_that_make_no_sense_are_refused(data, members, message):
    features, targets, _ = few(data)
    members = np.asarray(members, int) if members == [] else np.asarray(members)
    with pytest.raises(ValueError, match=message):
        leave_out.leave_set_out(features, targets, members, l2=L2)


def test_under_jit_such_sets_give_nan_and_harm_no_other(data):
    features, targets, _ = few(data)
    sets = jnp.array([[3, 3], [0, 40], [-2, 1], [4, -1]])
    got = tiny.quick_jit(
        lambda sets: leave_out.leave_set_out(
            features, targets, sets, l2=L2, queries=features[:2]
        )
    )(sets)
    assert np.all(np.isnan(got[:3]))
    want = leave_out.leave_set_out(features, targets, [4], l2=L2, queries=features[:2])
    np.testing.assert_allclose(got[3], want, rtol=1e-11)


@pytest.mark.parametrize("wrong", [np.nan, -1.0, np.inf])
def test_weights_that_make_no_sense_are_refused(wide, one_by_one, wrong):
    features, targets, queries, weights = wide
    bad = weights.copy()
    bad[[3, 5]] = wrong
    message = f"weights has {wrong} at row 3 and 2 such"
    with pytest.raises(ValueError, match=message):
        leave_out.leave_one_out(features, targets, l2=L2, weights=bad)
    with pytest.raises(ValueError, match=message):
        leave_out.leave_set_out_weights(features, targets, [3], l2=L2, weights=bad)
    # Nothing can be raised under jit: no number is told that could be believed.
    for leaf in jax.tree.leaves(one_by_one(features, targets, queries, bad, L2)):
        assert np.all(np.isnan(leaf))


def test_arguments_that_do_not_fit_are_refused(data):
    features, targets, weights = few(data)
    with pytest.raises(ValueError, match="l2 is -1"):
        leave_out.leverages(features, l2=-1.0)
    with pytest.raises(ValueError, match=r"expected \(n, f\), \(n, k\)"):
        leave_out.leave_one_out(features, targets[:-1], l2=L2)
    with pytest.raises(ValueError, match=r"expected \(n, f\), \(n, k\)"):
        leave_out.leave_one_out(features, targets, l2=L2, weights=weights[:-1])
    with pytest.raises(ValueError, match="queries have shape"):
        leave_out.leave_one_out_effects(features, targets, features[:, :2], l2=L2)
