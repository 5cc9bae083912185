import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.evaluation.cost import check_memory, compile_once, measured, run


@pytest.fixture
def matrices():
    return jnp.ones((64, 32), jnp.float32), jnp.ones((32, 16), jnp.float32)


def test_a_matrix_product_costs_what_it_must(matrices):
    product, cost = measured(jnp.matmul, *matrices)
    np.testing.assert_array_equal(product, np.full((64, 16), 32.0))
    assert cost.flops == 2 * 64 * 32 * 16
    least = 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert cost.peak_bytes is not None
    assert least <= cost.peak_bytes <= 2 * least


def test_compile_time_stands_apart_from_run_time():
    def slow_to_trace(x):
        time.sleep(0.2)
        return x + 1

    _, cost = measured(slow_to_trace, jnp.zeros(3))
    assert cost.compile_seconds >= 0.2
    assert cost.seconds < 0.1


def test_a_compiled_program_runs_other_arguments_without_tracing_again(matrices):
    traced = []

    def product(a, b):
        traced.append(1)
        return a @ b

    compiled = compile_once(product, *matrices)
    first, _ = run(compiled, *matrices)
    second, cost = run(compiled, 2 * matrices[0], matrices[1])
    np.testing.assert_array_equal(second, 2 * first)
    assert len(traced) == 1
    assert cost.compile_seconds == compiled.compile_seconds


def test_keyword_arguments_are_constants(matrices):
    total, _ = measured(jnp.sum, matrices[0], axis=0)
    np.testing.assert_array_equal(total, np.full(32, 64.0))


def test_shapes_alone_are_enough_to_compile(matrices):
    shapes = [jax.ShapeDtypeStruct(m.shape, m.dtype) for m in matrices]
    product, _ = run(compile_once(jnp.matmul, *shapes), *matrices)
    assert product.shape == (64, 16)


def test_another_shape_is_refused(matrices):
    compiled = compile_once(jnp.matmul, *matrices)
    with pytest.raises(TypeError):
        run(compiled, matrices[0][:5], matrices[1])


def test_short_programs_repeat_and_long_ones_run_once(matrices):
    _, short = measured(jnp.matmul, *matrices)
    assert short.repeats == 5

    def wait(x):
        time.sleep(0.35)
        return x

    _, long = measured(
        lambda x: jax.pure_callback(wait, jax.ShapeDtypeStruct((), x.dtype), x),
        jnp.zeros(()),
    )
    assert long.repeats == 1
    assert 0.35 <= long.seconds < 1.0


def test_a_program_that_does_not_fit_is_refused_with_the_numbers(matrices):
    program = compile_once(lambda a, b: jnp.sin(a @ b) @ b.T, *matrices)
    assert program.new_bytes >= 4 * 64 * 32  # its result; the arguments are there
    assert program.new_bytes <= program.peak_bytes - 4 * (64 * 32 + 32 * 16)
    check_memory(program, "a product", free=program.new_bytes)
    check_memory(program, "a product")  # this machine holds it
    check_memory(program._replace(new_bytes=None), "what is not told", free=0)
    with pytest.raises(MemoryError, match=r"a product needs .* kB .* 1 bytes are free"):
        check_memory(program, "a product", free=1)
