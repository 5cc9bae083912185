"""Gaussian processes: dense algebra, removal against refits, kernels by sampling."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax import tree
from unlearn_jax.attribution import gaussian_process as gp
from unlearn_jax.attribution import kernels
from unlearn_jax.attribution.leave_out import leave_set_out
from unlearn_jax.curvature.jacobian import tangent_kernel
from unlearn_jax.solvers import refusal
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import Objective

COUNT, FEATURES, OUTPUTS, NOISE = 30, 4, 2, 0.05
RBF = partial(kernels.rbf, length=1.5, variance=1.3)


def rbf(x, z):
    """The kernel pair by pair."""
    distance = np.sum((x[:, None] - z[None]) ** 2, axis=-1)
    return 1.3 * np.exp(-distance / (2 * 1.5**2))


def retrained(inputs, targets, noise, queries, kernel=rbf):
    """The textbook posterior from dense inverses."""
    inverse = np.linalg.inv(kernel(inputs, inputs) + np.diag(noise))
    cross = kernel(queries, inputs)
    covariance = kernel(queries, queries) - cross @ inverse @ cross.T
    return cross @ inverse @ targets, covariance


def assert_posterior(got, want, rows=slice(None)):
    np.testing.assert_allclose(got.mean[rows], want[0], rtol=1e-9, atol=1e-10)
    covariance = np.asarray(got.covariance)[rows][:, rows]
    np.testing.assert_allclose(covariance, want[1], rtol=1e-9, atol=1e-10)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(COUNT, FEATURES))
    targets = random.normal(size=(COUNT, OUTPUTS))
    weights = random.uniform(0.3, 2.0, COUNT)
    return inputs, targets, weights, random.normal(size=(5, FEATURES))


@pytest.fixture(scope="module")
def fit():
    @tiny.quick_jit
    def compiled(inputs, targets, weights):
        return gp.gp_fit(RBF, inputs, targets, noise=NOISE, weights=weights)

    return compiled


@pytest.fixture(scope="module")
def predict():
    return tiny.quick_jit(partial(gp.gp_predict, RBF))


@pytest.fixture(scope="module")
def remove():
    return tiny.quick_jit(gp.gp_remove)


@pytest.fixture(scope="module")
def state(data, fit):
    return refusal.check_applied(fit(*data[:3]))


def test_posterior_is_the_textbook_one(data, state, predict):
    inputs, targets, weights, queries = data
    want = retrained(inputs, targets, NOISE / weights, queries)
    assert_posterior(predict(state, queries), want)


def test_weight_zero_hides_what_a_row_holds(data, fit, predict):
    inputs, targets, weights, queries = data
    broken = inputs.copy(), targets.copy(), weights.copy()
    for part, value in zip(broken, (np.nan, np.inf, 0), strict=True):
        part[[0, 17]] = value
    state = refusal.check_applied(fit(*broken))
    kept = np.delete(np.arange(COUNT), [0, 17])
    want = retrained(inputs[kept], targets[kept], NOISE / weights[kept], queries)
    assert_posterior(predict(state, queries), want)
    assert tree.all_finite(gp.gp_leave_one_out(state))


@pytest.mark.parametrize("wrong", [np.nan, -1.0, np.inf])
def test_weights_that_make_no_sense_are_refused(data, fit, wrong):
    inputs, targets, weights, _ = data
    bad = weights.copy()
    bad[4] = wrong
    with pytest.raises(ValueError, match=f"weights has {wrong} at row 4"):
        gp.gp_fit(RBF, inputs, targets, noise=NOISE, weights=bad)
    assert int(fit(inputs, targets, bad).code) == refusal.NOT_FINITE


def test_no_variance_is_negative_where_rounding_would_make_it_so(data):
    # What the kernel gives such rows is below the rounding of the noise.
    inputs = 1e-9 * data[0]
    run = tiny.quick_jit(partial(gp.gp_fit, kernels.linear, noise=0.3))
    state = run(inputs, data[1], weights=data[2])
    assert np.any(1 / np.diagonal(state.inverse) < state.noise)
    variance = np.asarray(gp.gp_leave_one_out(state).variance)
    assert np.all(variance >= 0)
    np.testing.assert_allclose(variance, 0, atol=1e-15)


def test_removal_equals_a_fit_on_the_rest_request_after_request(
    data, state, remove, predict
):
    inputs, targets, weights, queries = data
    left = state
    for request in ([3, 29, 11], [0, -1, 5], [7, 8, -1]):
        left = refusal.check_applied(remove(left, jnp.array(request)))
    gone = [0, 3, 5, 7, 8, 11, 29]
    kept = np.delete(np.arange(COUNT), gone)
    want = retrained(inputs[kept], targets[kept], NOISE / weights[kept], queries)
    assert_posterior(predict(left, queries), want)
    # Nothing of a removed row is left.
    assert not np.isin(inputs[gone], np.asarray(left.inputs)).any()
    for part in (left.targets, left.noise, left.pull, left.inverse, left.inverse.T):
        assert not np.any(np.asarray(part)[gone])


def test_removing_everything_leaves_the_prior(data, state, remove, predict):
    queries = data[3]
    nothing = refusal.check_applied(remove(state, jnp.arange(COUNT)))
    assert_posterior(
        predict(nothing, queries), (np.zeros((5, OUTPUTS)), rbf(queries, queries))
    )


def test_leave_one_out_equals_refits(data, state):
    inputs, targets, weights, _ = data
    got = gp.gp_leave_one_out(state)
    for n in range(COUNT):
        kept = np.delete(np.arange(COUNT), n)
        mean, covariance = retrained(
            inputs[kept], targets[kept], NOISE / weights[kept], inputs[[n]]
        )
        np.testing.assert_allclose(got.mean[n], mean[0], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(got.variance[n], covariance[0, 0], rtol=1e-9)


def test_sets_left_out_equal_refits(data, state):
    inputs, targets, weights, queries = data
    sets = np.array([[4, 9, -1], [20, 2, 1], [-1, 6, -1]])

    @tiny.quick_jit
    def both(state, queries):
        return (
            gp.gp_leave_set_out(RBF, state, sets, set_batch_size=2),
            gp.gp_leave_set_out(RBF, state, sets, queries, set_batch_size=2),
        )

    at_members, at_queries = both(state, queries)
    for row, members in enumerate(sets):
        real = members[members >= 0]
        kept = np.delete(np.arange(COUNT), real)
        rest = inputs[kept], targets[kept], NOISE / weights[kept]
        assert_posterior(tree.member(at_queries, row), retrained(*rest, queries))
        own = tree.member(at_members, row)
        assert_posterior(own, retrained(*rest, inputs[real]), members >= 0)
        padding = members < 0
        assert not np.any(np.asarray(own.mean)[padding])
        assert not np.any(np.asarray(own.covariance)[padding])


def test_the_linear_kernel_is_ridge_with_more_features_than_rows(data):
    random = np.random.default_rng(3)
    inputs, targets = random.normal(size=(8, 20)), data[1][:8]
    kernel = partial(kernels.linear, variance=2.0)

    @tiny.quick_jit
    def both(inputs, targets):
        state = gp.gp_fit(kernel, inputs, targets, noise=0.6)
        queries = inputs[:3] + 1
        mean = gp.gp_leave_set_out(kernel, state, [2, 5], queries).mean
        given = {"l2": 0.3, "queries": queries}
        return mean, leave_set_out(inputs, targets, [2, 5], **given)

    mean, ridge = both(inputs, targets)
    np.testing.assert_allclose(mean, ridge, rtol=1e-10)


def net(params, inputs, weight_std=1.2, bias_std=0.4):
    """One hidden ReLU layer in the tangent kernel's parametrisation, one output."""
    hidden = weight_std * inputs @ params["first"] / np.sqrt(inputs.shape[1])
    hidden = jax.nn.relu(hidden + bias_std * params["shift"][None])
    out = weight_std * hidden @ params["last"] / np.sqrt(params["shift"].size)
    return out + bias_std * params["offset"][None]


def test_wide_nets_have_both_kernels_within_their_standard_error(data):
    """At one hidden layer the expectation is that of any width."""
    x, z = data[0][:3], np.concatenate([data[0][:1], data[3][:2]])
    width, seeds = 32, 800

    @jax.jit
    def sample(keys, x, z):
        def one(key):
            parts = jax.random.split(key, 4)
            params = {
                "first": jax.random.normal(parts[0], (FEATURES, width)),
                "shift": jax.random.normal(parts[1], (width,)),
                "last": jax.random.normal(parts[2], (width, 1)),
                "offset": jax.random.normal(parts[3], (1,)),
            }
            objective = Objective(net, squared_error)
            products = net(params, x) * net(params, z)[:, 0][None]
            return products, tangent_kernel(objective, params, x, z, trace=True)

        drawn = jax.lax.map(one, keys, batch_size=50)
        return [(jnp.mean(d, 0), jnp.std(d, 0, ddof=1) / seeds**0.5) for d in drawn]

    drawn = sample(jax.random.split(jax.random.key(0), seeds), x, z)
    for (mean, error), tangent in zip(drawn, (False, True), strict=True):
        exact = kernels.relu_network(
            x, z, depth=1, weight_std=1.2, bias_std=0.4, tangent=tangent
        )
        assert np.all(np.asarray(error) < 0.1 * np.abs(exact).max())
        assert np.all(np.abs(mean - exact) < 4 * np.asarray(error))


def test_each_further_layer_is_an_expectation_over_the_one_before(data):
    random = np.random.default_rng(5)
    x = data[0][:4]
    found = {
        (depth, tangent): np.asarray(
            kernels.relu_network(
                x, x, depth=depth, weight_std=1.2, bias_std=0.4, tangent=tangent
            )
        )
        for depth in (1, 2, 3)
        for tangent in (False, True)
    }
    for depth in (2, 3):
        below = found[depth - 1, False]
        drawn = random.normal(size=(200_000, 4)) @ np.linalg.cholesky(below).T
        positive = np.maximum(drawn, 0)
        for values, exact in (
            (positive, (found[depth, False] - 0.4**2) / 1.2**2),
            (
                (drawn > 0).astype(float),
                (found[depth, True] - found[depth, False])
                / (1.2**2 * found[depth - 1, True]),
            ),
        ):
            products = values[:, :, None] * values[:, None]
            error = products.std(axis=0) / np.sqrt(len(drawn))
            assert np.all(np.abs(products.mean(axis=0) - exact) < 4 * error)


def test_without_hidden_layers_the_network_is_linear(data):
    x, z = data[0], data[3]
    got = kernels.relu_network(
        x, z, depth=0, weight_std=1.2, bias_std=0.4, tangent=True
    )
    np.testing.assert_allclose(got, 1.44 * x @ z.T / FEATURES + 0.16, rtol=1e-12)


@pytest.mark.parametrize("tangent", [False, True])
def test_network_kernels_are_safe_at_equal_opposite_and_zero_inputs(data, tangent):
    x = np.stack([data[0][0], data[0][0], -data[0][0], np.zeros(FEATURES)])

    @tiny.quick_jit
    def value_and_slope(x, z):
        def total(z):
            return jnp.sum(kernels.relu_network(x, z, depth=2, tangent=tangent))

        return kernels.relu_network(x, x, depth=2, tangent=tangent), jax.grad(total)(z)

    kernel, slope = value_and_slope(x, x)
    assert np.all(np.isfinite(slope))
    # With √2 and no bias every layer keeps Σ(x, x) = 2 |x|² / f, and Θ adds one more.
    own = 2 * np.sum(x[0] ** 2) / FEATURES * (3 if tangent else 1)
    np.testing.assert_allclose(kernel[0, :2], own, rtol=1e-12)
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
    assert not np.any(kernel[3])


def test_the_derivative_of_the_network_kernel_is_its_slope(data):
    x, z = data[0][:3], data[0][:3] + np.array([[0.0], [0.1], [1.0]])

    @tiny.quick_jit
    def along(z, step):
        return jax.jvp(lambda at: kernels.relu_network(x, at), (z,), (step,))

    step = np.random.default_rng(2).normal(size=z.shape)
    slope = along(z, step)[1]
    change = along(z + 1e-6 * step, step)[0] - along(z - 1e-6 * step, step)[0]
    np.testing.assert_allclose(slope, change / 2e-6, rtol=1e-5, atol=1e-6)


def test_images_are_flattened_by_kernels_and_kept_by_the_state(data):
    images = data[0].reshape(COUNT, 2, 2)
    kernel = partial(kernels.relu_network, tangent=True)
    state = tiny.quick_jit(partial(gp.gp_fit, kernel, noise=NOISE))(images, data[1])
    assert state.inputs.shape == images.shape
    flat = np.asarray(kernel(data[0], data[0])) + NOISE * np.eye(COUNT)
    np.testing.assert_allclose(state.pull, np.linalg.solve(flat, data[1]), rtol=1e-9)


def test_requests_that_make_no_sense_leave_the_state_as_it_was(state, remove):
    once = remove(state, jnp.array([3, -1, -1]))
    for start, request in (
        (once, [3, 4, -1]),  # removed before
        (state, [1, 1, 2]),
        (state, [0, 1, COUNT]),
        (state, [-2, 0, 1]),
    ):
        after = remove(start, jnp.array(request))
        assert int(after.code) == refusal.TOO_MUCH
        same = jax.tree.map(
            lambda a, b: bool(jnp.all(a == b)), after._replace(code=start.code), start
        )
        assert all(jax.tree.leaves(same))
        with pytest.raises(refusal.RefusedError, match="never learned"):
            refusal.check_applied(after)
    left = tiny.quick_jit(partial(gp.gp_leave_set_out, RBF))
    assert np.all(np.isnan(left(once, jnp.array([[3, 4], [5, 5], [0, 99]])).mean))
    bad = state._replace(inverse=-state.inverse)
    assert int(remove(bad, jnp.array([1, 2, 3])).code) == refusal.INDEFINITE


def test_what_cannot_be_fitted_says_so(data, fit):
    inputs, targets, weights, _ = data
    assert int(fit(inputs, targets * np.nan, weights).code) == refusal.NOT_FINITE
    twice = np.concatenate([inputs[:2], inputs[:2]])
    linear = tiny.quick_jit(partial(gp.gp_fit, kernels.linear, noise=1e-300))
    state = linear(twice, targets[:4])
    assert int(state.code) == refusal.ILL_CONDITIONED
    for noise in (0.0, -1.0, np.nan, np.ones(COUNT)):
        with pytest.raises(ValueError, match="one positive variance"):
            gp.gp_fit(RBF, inputs, targets, noise=noise)
    with pytest.raises(ValueError, match=r"expected \(n, ...\), \(n, k\)"):
        gp.gp_fit(RBF, inputs, targets[:-1], noise=NOISE)
    with pytest.raises(ValueError, match=r"expected \(n, ...\), \(n, k\)"):
        gp.gp_fit(RBF, inputs, targets, noise=NOISE, weights=weights[:-1])
    with pytest.raises(ValueError, match="number of hidden layers"):
        kernels.relu_network(inputs, inputs, depth=-1)


def test_known_bad_sets_are_refused(state):
    with pytest.raises(ValueError, match="at least one row"):
        gp.gp_remove(state, np.zeros(0, int))
    with pytest.raises(ValueError, match="run from 0 to 30"):
        gp.gp_remove(state, [0, COUNT])
    with pytest.raises(ValueError, match="names a row twice"):
        gp.gp_leave_set_out(RBF, state, [[1, 2], [4, 4]])
    with pytest.raises(ValueError, match=r"one set \(s,\)"):
        gp.gp_remove(state, [[0, 1], [2, 3]])


def test_vmap_over_targets_and_requests_and_float32(data):
    inputs, targets, weights, queries = (p.astype(np.float32) for p in data)

    @tiny.quick_jit
    @partial(jax.vmap, in_axes=(0, 0))
    def many(targets, members):
        state = gp.gp_fit(RBF, inputs, targets, noise=NOISE, weights=weights)
        return gp.gp_predict(RBF, gp.gp_remove(state, members), queries)

    stacked = jnp.stack([targets, targets[::-1]])
    got = many(stacked, jnp.array([[1, 2], [5, -1]]))
    assert got.mean.dtype == got.covariance.dtype == jnp.float32
    for row, kept in enumerate(np.delete(np.arange(COUNT), s) for s in ([1, 2], [5])):
        mean, covariance = retrained(
            inputs[kept],
            np.asarray(stacked)[row][kept],
            NOISE / weights[kept],
            queries,
        )
        np.testing.assert_allclose(got.mean[row], mean, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(got.covariance[row], covariance, atol=1e-3)
