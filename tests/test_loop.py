import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close

from unlearn_jax.loop import choose_loop, repeat, rounds, uses_convolution
from unlearn_kernels.target import targeting

LOOPS = ["device", "host"]


def recurrence(i, state, constants):
    return constants["a"] * state + i


def by_hand(count, state, a):
    for i in range(count):
        state = a * state + i
    return state


def convolve(x):
    return jax.lax.conv_general_dilated(
        x, jnp.ones((2, 2, 1, 1), x.dtype), (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


IMAGE = np.ones((1, 3, 3, 1), np.float32)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("run", [repeat, rounds])
def test_every_loop_equals_the_python_loop(run, count, loop):
    state = jnp.array([1.0, -2.0])
    done = run(count, recurrence, state, {"a": jnp.asarray(0.5)}, loop=loop)
    assert_trees_close(done, jnp.asarray(by_hand(count, state, 0.5)), rtol=1e-14)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("run", [repeat, rounds])
def test_numpy_constants_can_be_indexed_by_the_step(run, loop):
    table = np.array([3.0, 5.0, 7.0])

    def body(i, total, table):
        return total + table[i]

    assert float(run(3, body, jnp.zeros(()), table, loop=loop)) == 15.0


def test_the_count_may_be_traced_on_the_device():
    counted = jax.jit(lambda n: repeat(n, lambda i, s, _: s + i, jnp.zeros((), int)))
    assert [int(counted(n)) for n in (0, 4)] == [0, 6]


def test_the_host_loop_compiles_its_body_once_per_function():
    traces = []

    def body(i, state, constants):
        traces.append(i)
        return state + constants

    for start in (0.0, 1.0):
        repeat(3, body, jnp.full((), start, float), jnp.ones(()), loop="host")
    assert len(traces) == 1


def test_rounds_on_the_host_let_inner_loops_run_on_the_host():
    seen = []

    def body(i, state, _):
        seen.append(i)
        assert not isinstance(state, jax.core.Tracer)
        return repeat(2, recurrence, state, {"a": jnp.ones(())}, loop="host")

    rounds(2, body, jnp.zeros(()), loop="host")
    assert seen == [0, 1]


@pytest.mark.parametrize(
    "act",
    [
        lambda x: jax.jit(lambda s: repeat(2, lambda i, t, c: t, s, loop="host"))(x),
        lambda x: jax.vmap(lambda s: repeat(2, lambda i, t, c: t, s, loop="host"))(x),
        lambda x: jax.jit(lambda n: repeat(n, lambda i, t, c: t, x, loop="host"))(2),
        lambda x: jax.jit(lambda c: repeat(2, lambda i, t, c: t, x, c, loop="host"))(x),
    ],
)
def test_the_host_loop_inside_a_transformation_is_refused_with_a_way_out(act):
    with pytest.raises(ValueError, match="only loop='device' can run; call the func"):
        act(jnp.ones(2))


@pytest.mark.parametrize(
    "deep",
    [
        convolve,
        jax.jit(convolve),
        jax.checkpoint(convolve),
        jax.grad(lambda x: convolve(x).sum()),
        lambda x: jax.lax.cond(x.sum() > 0, lambda y: y, convolve, x),
        lambda x: jax.lax.fori_loop(0, 2, lambda i, y: jax.jit(convolve)(y), x),
        lambda x: jax.lax.map(convolve, x[None]),
        lambda x: jax.vmap(jax.jit(convolve))(x[None]),
    ],
)
def test_a_convolution_is_found_however_deep_it_lies(deep):
    assert uses_convolution(deep, IMAGE)


def test_a_matrix_product_is_no_convolution():
    assert not uses_convolution(jax.jit(lambda x: x @ x), jnp.ones((2, 2)))


def test_auto_means_host_only_for_raw_convolutions_on_cpu():
    assert choose_loop("auto", convolve, IMAGE) == "host"
    assert choose_loop("auto", lambda x: x + x, IMAGE) == "device"
    with targeting("gpu"):
        assert choose_loop("auto", convolve, IMAGE) == "device"


def test_auto_means_device_inside_a_transformation():
    chosen = []
    jax.jit(lambda x: chosen.append(choose_loop("auto", convolve, x)))(IMAGE)
    assert chosen == ["device"]


def test_an_explicit_choice_is_kept():
    for loop in LOOPS:
        assert choose_loop(loop, convolve, IMAGE) == loop
