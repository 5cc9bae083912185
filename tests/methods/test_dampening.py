"""The shared dampening step on numbers by hand; its label-free and adaptive users."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.methods.assd import assd
from unlearn_jax.methods.dampening import Importance, dampen, importance
from unlearn_jax.methods.lfssd import lfssd
from unlearn_jax.train.loss import squared_norm
from unlearn_jax.train.objective import bind


def of(*values, batch_size=1, dtype=jnp.float64):
    return Importance({"w": jnp.asarray(values, dtype)}, jnp.asarray(batch_size))


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp")


def test_dampen_by_hand():
    params = {"w": jnp.asarray([8.0, -8.0, 8.0, 8.0, 8.0, 8.0])}
    overall = of(1.0, 1.0, 1.0, 0.0, 0.0, 1.0)
    forgotten = of(8.0, 8.0, 3.0, 2.0, 0.0, 4.0)
    # ratios 8, 8, 3 (kept), infinite, 0/0 (kept), 4 = alpha (kept)
    moved = dampen(params, overall, forgotten, alpha=4.0, dampening=2.0)
    np.testing.assert_array_equal(moved["w"], [2.0, -2.0, 8.0, 0.0, 8.0, 8.0])


def test_dampen_never_grows_a_parameter():
    params = {"w": jnp.asarray([3.0, 3.0])}
    moved = dampen(params, of(1.0, 1.0), of(2.0, 9.0), alpha=1.0, dampening=3.0)
    np.testing.assert_allclose(moved["w"], [3.0, 1.0], rtol=1e-15)


def test_dampen_keeps_float32_under_a_float64_threshold():
    params = {"w": jnp.ones(2, jnp.float32)}
    overall, forgotten = (of(*v, dtype=jnp.float32) for v in ((1, 1), (9, 1)))
    alpha = jnp.asarray(2.0, jnp.float64)
    moved = dampen(params, overall, forgotten, alpha=alpha, dampening=1.0)
    assert moved["w"].dtype == jnp.float32


def test_dampen_refuses_importances_of_two_batch_sizes():
    params = {"w": jnp.ones(1)}
    with pytest.raises(ValueError, match="batch size 64, of the forget set at 128; "):
        dampen(
            params,
            of(1.0, batch_size=64),
            of(9.0, batch_size=128),
            alpha=1.0,
            dampening=1.0,
        )


def test_lfssd_reads_no_label(learner, original, train, request_a):
    method = lfssd(learner, alpha=1.0, importance_batch=4)

    @tiny.quick_jit
    def unlearn(train, request):
        state = method.prepare(jax.random.key(0), original, train)
        return state, method.forget(jax.random.key(0), state, original, request)[0]

    def relabelled(batch):
        return batch._replace(targets=batch.targets[::-1])

    other = request_a._replace(
        forget=relabelled(request_a.forget), retain=relabelled(request_a.retain)
    )
    assert np.any(other.forget.targets != request_a.forget.targets)
    state, moved = unlearn(train, request_a)
    assert_trees_close(unlearn(relabelled(train), other), (state, moved), rtol=0)
    assert np.any(tiny.flat(moved.params) != tiny.flat(original.params))


def test_lfssd_importance_is_the_absolute_slope_of_the_squared_outputs(
    learner, original, train
):
    size = 20
    method = lfssd(learner, importance_batch=size)
    state = tiny.quick_jit(method.prepare)(jax.random.key(0), original, train)
    objective = bind(learner.model, original.stats, squared_norm)
    jacobian = tiny.quick_jit(jax.jacobian(objective.example_losses))
    slopes = jax.tree.map(np.asarray, jacobian(original.params, train))
    expected = jax.tree.map(
        lambda j: np.mean(
            [np.abs(j[i : i + size].mean(0)) for i in range(0, tiny.COUNT, size)],
            axis=0,
        ),
        slopes,
    )
    assert_trees_close(state.value, expected, rtol=1e-9, atol=1e-15)
    assert int(state.batch_size) == size


def test_assd_dampens_the_predicted_share(learner, original, request_a):
    method = assd(learner, importance_batch=4)

    @tiny.quick_jit
    def unlearn(request):
        both = [
            importance(learner, original, data, "batch", 4).value
            for data in (request.forget, request.retain)
        ]
        return both, method.forget(jax.random.key(0), (), original, request)[0].params

    (forgotten, retained), params = unlearn(request_a)
    ratios = np.sort(tiny.flat(forgotten) / tiny.flat(retained))
    percent = np.log1p(100 * 6 / tiny.COUNT)
    # The percentile lies between two of the sorted ratios; those above it are dampened.
    above = int(np.floor(percent / 100 * (ratios.size - 1))) + 1
    moved = tiny.flat(params) != tiny.flat(original.params)
    assert ratios[-above] > 1
    assert moved.sum() == above
    assert np.all((tiny.flat(forgotten) / tiny.flat(retained))[moved] >= ratios[-above])
    assert above / ratios.size == pytest.approx(percent / 100, abs=1 / ratios.size)


@pytest.mark.parametrize(("make", "least"), [(assd, 2), (lfssd, 1)])
def test_impossible_batch_sizes_are_refused(learner, make, least):
    sentence = f"^{make.__name__}: importance_batch must be at least {least}, got"
    with pytest.raises(ValueError, match=sentence):
        make(learner, importance_batch=least - 1)
