import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close

from unlearn_jax.data.accumulate import accumulate, collect
from unlearn_jax.data.batch import from_arrays

LOOPS = ["device", "host"]
SIZES = [(10, 4), (8, 4), (3, 8), (1, 1), (7, 7), (9, 1)]  # (examples, batch)


def examples(n, weights=None):
    random = np.random.default_rng(n)
    weights = random.uniform(0.5, 2.0, n) if weights is None else weights
    return from_arrays(
        random.standard_normal((n, 3)), random.standard_normal((n, 2)), weights
    )


def moments(batch, scale):
    weighted = batch.weights[:, None] * batch.inputs
    return {
        "second": scale * weighted.T @ batch.inputs,
        "cross": weighted.T @ batch.targets,
        "mass": jnp.sum(batch.weights),
        "present": jnp.sum(batch.weights > 0),
    }


def direct(batch, scale):
    w, x, y = (np.asarray(a) for a in (batch.weights, batch.inputs, batch.targets))
    return {
        "second": scale * (x * w[:, None]).T @ x,
        "cross": (x * w[:, None]).T @ y,
        "mass": w.sum(),
        "present": (w > 0).sum(),
    }


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("n", "batch_size"), SIZES)
def test_the_sum_over_batches_equals_the_direct_sum(n, batch_size, loop):
    data = examples(n)
    total = accumulate(moments, data, 2.0, batch_size=batch_size, loop=loop)
    assert_trees_close(total, direct(data, 2.0), atol=1e-12)


@pytest.mark.parametrize("loop", LOOPS)
def test_examples_of_weight_zero_do_not_count(loop):
    weights = np.array([1.0, 0, 0, 2.0, 0, 0, 0, 0, 0, 3.0])
    data = examples(10, weights)
    total = accumulate(moments, data, 1.0, batch_size=4, loop=loop)
    assert_trees_close(total, direct(data, 1.0), atol=1e-12)
    assert int(total["present"]) == 3
    nothing = accumulate(
        moments, examples(10, np.zeros(10)), 1.0, batch_size=4, loop=loop
    )
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(nothing))


def test_the_sum_keeps_the_dtypes_of_the_function():
    def two(batch):
        return batch.weights.sum().astype(jnp.bfloat16), jnp.ones((), jnp.int32)

    assert_trees_close(
        accumulate(two, examples(5, np.ones(5)), batch_size=2),
        (jnp.asarray(5, jnp.bfloat16), jnp.asarray(3, jnp.int32)),
        rtol=0,
    )


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("n", "batch_size"), SIZES)
def test_collecting_equals_the_direct_values_in_their_order(n, batch_size, loop):
    inputs = np.arange(3.0 * n).reshape(n, 3)

    def function(x, scale):
        return {"sum": scale * x.sum(axis=1), "square": x**2}

    got = collect(function, inputs, 3.0, batch_size=batch_size, loop=loop)
    assert_trees_close(
        got, {"sum": 3 * inputs.sum(axis=1), "square": inputs**2}, rtol=1e-14
    )


def test_collecting_maps_a_tree_of_inputs():
    x, y = np.arange(5.0), np.arange(10.0).reshape(5, 2)
    got = collect(lambda pair: pair[0][:, None] * pair[1], (x, y), batch_size=2)
    assert_trees_close(got, x[:, None] * y, rtol=0)


def test_both_work_under_jit_vmap_and_grad():
    data = jax.tree.map(jnp.asarray, examples(5))

    def total(scale, batch):
        return accumulate(moments, batch, scale, batch_size=2)["second"]

    scales = jnp.array([1.0, 3.0])
    stacked = jax.jit(jax.vmap(total, (0, None)))(scales, data)
    assert_trees_close(stacked[1], 3 * stacked[0], rtol=1e-12)
    slope = jax.jacfwd(total)(jnp.asarray(2.0), data)
    assert_trees_close(slope, stacked[0], rtol=1e-12)


@pytest.mark.parametrize("loop", LOOPS)
def test_memory_is_bounded_by_the_batch(loop):
    sizes = set()

    def function(batch):
        sizes.add(batch.weights.shape[0])
        return jnp.sum(batch.weights)

    accumulate(function, examples(10), batch_size=4, loop=loop)
    collect(lambda x: (sizes.add(len(x)), x)[1], np.zeros(10), batch_size=4, loop=loop)
    assert sizes == {4}


def test_on_the_host_the_same_function_is_compiled_once():
    traces = []

    def function(batch):
        traces.append(1)
        return jnp.sum(batch.weights)

    def values(inputs):
        traces.append(1)
        return inputs

    data = jax.tree.map(jnp.asarray, examples(10))
    for call in (
        lambda: accumulate(function, data, batch_size=4, loop="host"),
        lambda: collect(values, data.inputs, batch_size=4, loop="host"),
    ):
        call()
        first = len(traces)
        call()
        assert len(traces) == first + 1  # only the shapes of the result are asked again
        traces.clear()


@pytest.mark.parametrize(("n", "batch_size"), [(0, 4), (5, 0)])
def test_nothing_to_do_is_refused(n, batch_size):
    sentence = f"got {n} examples in batches of {batch_size}"
    with pytest.raises(ValueError, match=sentence):
        accumulate(moments, examples(n), 1.0, batch_size=batch_size)
    with pytest.raises(ValueError, match=sentence):
        collect(np.square, np.zeros((n, 2)), batch_size=batch_size)
