"""Leave-one-out distinguishability: retraining, sampling, underflow."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax import tree
from unlearn_jax.attribution import gaussian_process as gp
from unlearn_jax.attribution import kernels, lood

COUNT, FEATURES, OUTPUTS, NOISE = 24, 3, 2, 0.05
RBF = partial(kernels.rbf, length=1.2)
KERNELS = {"rbf": RBF, "relu": partial(kernels.relu_network, depth=2, bias_std=0.3)}


def retrained(matrix, targets, noise, rows):
    """Posterior at the last rows of a kernel matrix, from dense inverses."""
    n = len(targets)
    inverse = np.linalg.inv(matrix[np.ix_(rows, rows)] + noise * np.eye(len(rows)))
    cross = matrix[n:][:, rows]
    return cross @ inverse @ targets[rows], matrix[n:, n:] - cross @ inverse @ cross.T


def divergence(p, q, logdet=lambda m: np.linalg.slogdet(m)[1]):
    """KL(p ‖ q) as the paper prints it, over outputs that share their covariance."""
    (mean_p, cov_p), (mean_q, cov_q) = p, q
    size, outputs = mean_p.shape
    inverse, shift = np.linalg.inv(cov_q), mean_q - mean_p
    return 0.5 * (
        outputs * (logdet(cov_q) - logdet(cov_p) - size + np.trace(inverse @ cov_p))
        + np.sum(shift * (inverse @ shift))
    )


def truth(without, complete):
    return (
        0.5 * np.mean((without[0] - complete[0]) ** 2),
        divergence(without, complete),
        divergence(complete, without),
    )


def to_posterior(pair):
    return gp.Posterior(*map(jnp.asarray, pair))


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(COUNT, FEATURES))
    targets = random.normal(size=(COUNT, OUTPUTS))
    return inputs, targets, random.normal(size=(4, FEATURES))


@pytest.fixture(scope="module")
def state(data):
    fit = tiny.quick_jit(partial(gp.gp_fit, RBF, noise=NOISE))
    return fit(data[0], data[1])


@pytest.fixture(scope="module")
def closed():
    return tiny.quick_jit(partial(lood.lood, RBF))


@pytest.fixture(scope="module")
def at_itself(state):
    return tiny.quick_jit(lood.self_lood)(state)


@pytest.fixture(scope="module")
def general():
    return tiny.quick_jit(lood.distinguishability)


@pytest.mark.parametrize("name", KERNELS)
def test_closed_form_equals_retraining_without_each_row(data, name, general):
    inputs, targets, queries = data
    kernel = KERNELS[name]

    @tiny.quick_jit
    def run(inputs, targets, queries):
        everything = jnp.concatenate([inputs, queries])
        state = gp.gp_fit(kernel, inputs, targets, noise=NOISE)
        return lood.lood(kernel, state, queries), kernel(everything, everything)

    got, matrix = run(inputs, targets, queries)
    matrix = np.asarray(matrix)
    complete = retrained(matrix, targets, NOISE, np.arange(COUNT))
    for n in range(COUNT):
        rows = np.delete(np.arange(COUNT), n)
        without = retrained(matrix, targets, NOISE, rows)
        want = truth(without, complete)
        np.testing.assert_allclose(tree.member(got, n), want, rtol=1e-8, atol=1e-12)
        if n < 3:
            pair = general(to_posterior(without), to_posterior(complete))
            np.testing.assert_allclose(pair, want, rtol=1e-8, atol=1e-12)


def test_sets_equal_retraining(data, state, general):
    inputs, targets, queries = data
    everything = np.concatenate([inputs, queries])
    matrix = np.asarray(RBF(everything, everything))
    members = np.array([3, 20, 11])

    @tiny.quick_jit
    def both(state, queries):
        without = gp.gp_leave_set_out(RBF, state, members, queries)
        return without, gp.gp_predict(RBF, state, queries)

    got = general(*both(state, queries))
    complete = retrained(matrix, targets, NOISE, np.arange(COUNT))
    rows = np.delete(np.arange(COUNT), members)
    want = truth(retrained(matrix, targets, NOISE, rows), complete)
    np.testing.assert_allclose(got, want, rtol=1e-8)


def test_self_query_equals_the_general_formula(data, state, closed, at_itself):
    for n in (0, 7, 23):
        want = tree.member(closed(state, data[0][[n]]), n)
        np.testing.assert_allclose(tree.member(at_itself, n), want, rtol=1e-8)
    # By hand, from the variance v without the row and its residual.
    left = gp.gp_leave_one_out(state)
    v, r = np.asarray(left.variance), data[1] - np.asarray(left.mean)
    moved = (v / (v + NOISE))[:, None] * r
    np.testing.assert_allclose(
        at_itself.mean_distance, 0.5 * np.mean(moved**2, axis=1), rtol=1e-9
    )
    after = v * NOISE / (v + NOISE)
    by_hand = OUTPUTS * (np.log(after / v) - 1 + v / after)
    by_hand = 0.5 * (by_hand + np.sum(moved**2, axis=1) / after)
    np.testing.assert_allclose(at_itself.divergence, by_hand, rtol=1e-8)


def test_no_queries_tell_more_than_the_row_itself(data, state, closed, at_itself):
    best = at_itself
    near = data[0][:4] + 0.05
    for queries in (data[2], near):
        other = closed(state, queries)
        assert np.all(other.divergence < best.divergence)
        assert np.all(other.reverse < best.reverse)
    # With the row among the queries the others add nothing.
    joint = tree.member(closed(state, data[0][[5, 1, 9, 2]]), 5)
    own = tree.member(best, 5)
    np.testing.assert_allclose(joint.divergence, own.divergence, rtol=1e-7)
    np.testing.assert_allclose(joint.reverse, own.reverse, rtol=1e-7)


def test_noise_on_the_queries_is_added_to_both(data, state, general):
    @tiny.quick_jit
    def three(state, queries):
        return (
            gp.gp_leave_set_out(RBF, state, [6], queries),
            gp.gp_predict(RBF, state, queries),
            tree.member(lood.lood(RBF, state, queries, query_noise=0.3), 6),
        )

    *pair, got = three(state, data[2])
    more = 0.3 * jnp.eye(4)
    want = general(*(p._replace(covariance=p.covariance + more) for p in pair))
    np.testing.assert_allclose(got, want, rtol=1e-8)


def test_absent_rows_tell_nothing(data, state, closed):
    removed = tiny.quick_jit(gp.gp_remove)(state, jnp.array([4, 9]))
    at_itself = tiny.quick_jit(lood.self_lood)(removed)
    for got in (closed(removed, data[2]), at_itself):
        values = np.stack(got)
        assert np.all(np.isfinite(values))
        assert not np.any(values[:, [4, 9]])
        assert np.all(np.delete(values, [4, 9], axis=1) > 0)


def random_pair(q=3, outputs=2):
    random = np.random.default_rng(4)
    pair = []
    for _ in range(2):
        root = random.normal(size=(q, q))
        covariance = root @ root.T / q + 0.5 * np.eye(q)
        pair.append((0.5 * random.normal(size=(q, outputs)), covariance))
    return pair


def log_density(law, outputs):
    mean, covariance = law
    shift = outputs - mean
    solved = np.einsum("pq,sqk->spk", np.linalg.inv(covariance), shift)
    volume = mean.shape[1] * np.linalg.slogdet(covariance)[1]
    return -0.5 * (np.sum(shift * solved, axis=(1, 2)) + volume)


def draw(random, law, samples):
    noise = random.normal(size=(samples, *law[0].shape))
    return law[0] + np.linalg.cholesky(law[1]) @ noise


def test_divergences_are_expected_log_ratios(general):
    pair = random_pair()
    got = general(*map(to_posterior, pair))
    random = np.random.default_rng(5)
    for (p, q), value in ((pair, got.divergence), (pair[::-1], got.reverse)):
        drawn = draw(random, p, 40_000)
        ratio = log_density(p, drawn) - log_density(q, drawn)
        error = ratio.std() / np.sqrt(len(ratio))
        assert error < 0.05 * value
        assert abs(ratio.mean() - value) < 4 * error


def test_many_queries_where_determinants_underflow(general):
    """The published quotient of determinants is 0 / 0; the value is not."""
    random = np.random.default_rng(6)
    inputs, queries = random.normal(size=(30, 8)), random.normal(size=(300, 8))
    targets = random.normal(size=(30, 1))
    kernel = partial(kernels.rbf, length=1.5, variance=0.05)

    @tiny.quick_jit
    def run(inputs, targets, queries):
        everything = jnp.concatenate([inputs, queries])
        state = gp.gp_fit(kernel, inputs, targets, noise=0.01)
        return lood.lood(kernel, state, queries), kernel(everything, everything)

    got, matrix = run(inputs, targets, queries)
    matrix = np.asarray(matrix)
    complete = retrained(matrix, targets, 0.01, np.arange(30))
    without = retrained(matrix, targets, 0.01, np.arange(29))
    assert np.linalg.det(complete[1]) == np.linalg.det(without[1]) == 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        published = divergence(without, complete, lambda m: np.log(np.linalg.det(m)))
    assert not np.isfinite(published)
    want = truth(without, complete)
    np.testing.assert_allclose(tree.member(got, 29), want, rtol=1e-8)
    pair = general(to_posterior(without), to_posterior(complete))
    np.testing.assert_allclose(pair, want, rtol=1e-8)
    assert pair.divergence > 1e-3


@pytest.mark.parametrize("measure", lood.Distinguishability._fields)
def test_optimised_queries_are_never_below_their_start(
    data, state, closed, at_itself, measure
):
    starts = np.concatenate([data[2], data[0][[8]]])

    @tiny.quick_jit
    def search(state, row, starts):
        return lood.optimise_query(
            RBF, state, row, starts, measure=measure, steps=60, learning_rate=0.3
        )

    found = search(state, 8, starts)
    assert found.query.shape == starts.shape
    assert np.all(found.value >= found.start_value)
    assert np.any(np.asarray(found.value) > 1.5 * np.asarray(found.start_value))
    for query, value, start, at_start in zip(
        found.query, found.value, starts, found.start_value, strict=True
    ):
        for point, claim in ((query, value), (start, at_start)):
            there = getattr(closed(state, point[None]), measure)[8]
            np.testing.assert_allclose(claim, there, rtol=1e-7)
    if measure != "mean_distance":
        best = getattr(at_itself, measure)[8]
        assert np.all(np.asarray(found.value) <= best * (1 + 1e-9))
        np.testing.assert_allclose(found.value[-1], best, rtol=1e-8)


def test_steps_as_published_over_rows_and_within_a_box(data, state):
    rows = jnp.array([8, 2])

    @tiny.quick_jit
    def search(state, starts):
        def one(row):
            return lood.optimise_query(
                RBF, state, row, starts, project=lambda x: jnp.clip(x, -1, 1)
            )

        return jax.vmap(one)(rows)

    found = search(state, np.clip(data[2], -1, 1))
    assert found.query.shape == (2, *data[2].shape)
    assert np.all(np.abs(found.query) <= 1)
    assert np.all(found.value >= found.start_value)
    assert np.all(found.value[:, 0] > found.start_value[:, 0])


def test_a_path_that_leaves_the_numbers_returns_its_start(data, state):
    def kernel(x, z):
        return RBF(x, z) * jnp.where(jnp.abs(x[:, :1]) < 4, 1, jnp.nan)

    @tiny.quick_jit
    def search(state, starts):
        return lood.optimise_query(
            kernel, state, 3, starts, steps=3, learning_rate=1e12
        )

    found = search(state, data[2])
    np.testing.assert_array_equal(found.query, data[2])
    np.testing.assert_array_equal(found.value, found.start_value)
    assert np.all(np.isfinite(found.value))


def within(estimate, exact):
    assert 0 < estimate.stderr < 0.02
    assert abs(estimate.value - exact) < 4 * estimate.stderr


def test_attack_has_the_closed_form_auc_where_there_is_one(key):
    attack = tiny.quick_jit(lood.attack_auc)
    (mean, covariance), (other, _) = random_pair()
    same = tiny.quick_jit(lood.equal_covariance_auc)(other - mean, covariance)
    assert 0.6 < same < 0.95
    pair = to_posterior((mean, covariance)), to_posterior((other, covariance))
    within(attack(key, *pair), same)
    # Two variances, one mean: the attack ranks by |x|, and P(|x'| < |x|) is an angle.
    wide, narrow = (
        to_posterior((np.ones((1, 1)), np.full((1, 1), v))) for v in (4, 1.0)
    )
    within(attack(key, wide, narrow), 2 / np.pi * np.arctan(2))
    within(attack(key, narrow, wide), 2 / np.pi * np.arctan(2))
    # The same law twice has a constant score: all ties.
    nothing = attack(key, wide, wide)
    assert float(nothing.value) == 0.5


def test_auc_error_is_the_spread_over_keys(key):
    pair = [to_posterior(law) for law in random_pair()]
    keys = jax.random.split(key, 60)
    runs = tiny.quick_jit(jax.vmap(lambda k: lood.attack_auc(k, *pair, samples=200)))(
        keys
    )
    spread = np.std(runs.value, ddof=1)
    # The spread over 60 keys is itself known to 1 / √120.
    assert abs(spread / np.mean(runs.stderr) - 1) < 4 / np.sqrt(120)


def test_threshold_auc_is_the_share_of_pairs_in_order():
    pair = random_pair()
    threshold = tiny.quick_jit(lood.threshold_auc)
    exact = np.asarray(threshold(*map(to_posterior, pair)))
    random = np.random.default_rng(7)
    low, high = (draw(random, law, 20_000) for law in pair)
    rising = np.sign(pair[1][0] - pair[0][0])
    share = np.mean(rising * (high - low) > 0, axis=0)
    error = np.sqrt(exact * (1 - exact) / 20_000)
    assert np.all(np.abs(share - exact) < 4 * error)
    one = to_posterior((pair[0][0][:1, :1], pair[0][1][:1, :1]))
    moved = one._replace(mean=one.mean + 0.7)
    np.testing.assert_allclose(
        threshold(one, moved)[0, 0],
        tiny.quick_jit(lood.equal_covariance_auc)(
            jnp.full((1, 1), 0.7), one.covariance
        ),
        rtol=1e-12,
    )


def test_vmap_over_models_and_float32(data):
    inputs, targets, queries = (part.astype(np.float32) for part in data)

    @tiny.quick_jit
    @jax.vmap
    def many(targets):
        state = gp.gp_fit(RBF, inputs, targets, noise=NOISE)
        return lood.lood(RBF, state, queries), lood.self_lood(state)

    got = many(jnp.stack([targets, 2 * targets]))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(got))
    for result in got:
        assert result.divergence.shape == (2, COUNT)
        first, second = result.mean_distance
        np.testing.assert_allclose(4 * first, second, rtol=1e-3)


def test_what_makes_no_sense_is_refused(data, state, key, general):
    starts = data[2]
    search = partial(lood.optimise_query, RBF, state)
    with pytest.raises(ValueError, match="measure is 'kl'"):
        search(0, starts, measure="kl")
    with pytest.raises(ValueError, match="0 steps"):
        search(0, starts, steps=0)
    with pytest.raises(ValueError, match="600 steps from starts"):
        search(0, starts[:0])
    for row in (-1, COUNT):
        with pytest.raises(ValueError, match=f"row is {row}, expected 0 to 23"):
            search(row, starts)
    pair = [to_posterior(law) for law in random_pair()]
    with pytest.raises(ValueError, match="samples is 1"):
        lood.attack_auc(key, *pair, samples=1)
    short = pair[1]._replace(mean=pair[1].mean[:, :1])
    for function in (lood.distinguishability, lood.threshold_auc):
        with pytest.raises(ValueError, match="got posteriors of shapes"):
            function(pair[0], short)
    broken = pair[1]._replace(covariance=-pair[1].covariance)
    assert np.all(np.isnan(general(pair[0], broken)[1:]))
    attack = tiny.quick_jit(partial(lood.attack_auc, samples=10))
    assert np.all(np.isnan(attack(key, pair[0], broken)))
