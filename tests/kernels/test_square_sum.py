"""Sums of squared per-example products: every form equals the formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_kernels.fisher_diagonal import IMPLEMENTATIONS, square_sum

pytestmark = pytest.mark.optimised

SHAPES = {
    "one position": (5, 1, 1, 3, 4),
    "one position in groups": (5, 3, 1, 3, 4),
    "positions": (4, 1, 6, 3, 2),
    "positions in groups": (4, 2, 6, 3, 2),
    "one example": (1, 1, 6, 3, 2),
}
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
shapes = pytest.mark.parametrize("shape", SHAPES)
ON_CPU = [None, *(name for name in IMPLEMENTATIONS if name != "triton")]
forms = pytest.mark.parametrize("implementation", ON_CPU)


def operands(shape, dtype="float64"):
    n, g, t, i, o = SHAPES[shape]
    draw = np.random.default_rng(0)
    arrays = (
        draw.normal(size=(n, g, t, i)),
        draw.normal(size=(n, g, t, o)),
        draw.uniform(size=n),
    )
    return tuple(jnp.asarray(array, dtype) for array in arrays)


def by_loops(inputs, slopes, weights):
    total = 0
    for a, d, weight in zip(inputs, slopes, weights, strict=True):
        gradient = sum(
            np.einsum("gi,go->gio", a[:, t], d[:, t]) for t in range(a.shape[1])
        )
        total = total + weight * gradient**2
    return total


@shapes
@forms
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_form_is_the_formula(shape, implementation, dtype):
    if implementation == "single" and SHAPES[shape][2] > 1:
        with pytest.raises(NotImplementedError, match="one position, got 6"):
            square_sum(*operands(shape), implementation=implementation)
        return
    value = square_sum(*operands(shape, dtype), implementation=implementation)
    exact = by_loops(*map(np.asarray, operands(shape)))
    assert value.dtype == dtype
    np.testing.assert_allclose(value, exact, rtol=TOLERANCE[dtype])


@shapes
def test_gradients_and_vmap_agree_with_the_reference(shape):
    arrays = operands(shape)
    stacked = tuple(jnp.stack([array, 2 * array]) for array in arrays)

    def slopes(implementation):
        def loss(*xs):
            return jnp.sum(jnp.sin(square_sum(*xs, implementation=implementation)))

        return jax.jit(jax.vmap(jax.grad(loss, (0, 1, 2))))(*stacked)

    for ours, reference in zip(slopes(None), slopes("reference"), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-12)


def test_streamed_holds_one_gradient_not_all():
    arrays = tuple(
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in ((64, 1, 8, 256), (64, 1, 8, 256), (64,))
    )

    def held(implementation):
        form = functools.partial(square_sum, implementation=implementation)
        analysis = jax.jit(form).lower(*arrays).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    one = 256 * 256 * 4
    assert held("streamed") < 5 * one
    assert held("reference") > 60 * one


def test_unknown_forms_are_refused():
    with pytest.raises(ValueError, match="no implementation 'fast'; choose one of ref"):
        square_sum(*operands("positions"), implementation="fast")
