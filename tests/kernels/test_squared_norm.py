"""Squared norms of per-example gradients: every form equals the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_kernels.squared_norm import IMPLEMENTATIONS, squared_norm

SHAPES = {
    "one position": (5, 2, 1, 3, 4),
    "few positions": (4, 2, 2, 7, 9),
    "many positions": (4, 2, 9, 3, 2),
}
ON_CPU = [None, *(name for name in IMPLEMENTATIONS if name != "triton")]


def operands(shape):
    n, g, t, i, o = SHAPES[shape]
    draw = np.random.default_rng(0)
    return tuple(jnp.asarray(draw.normal(size=(n, g, t, size))) for size in (i, o))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("implementation", ON_CPU)
def test_every_form_is_the_formula(shape, implementation):
    inputs, slopes = operands(shape)
    exact = np.sum(np.einsum("ngti,ngto->ngio", inputs, slopes) ** 2, (1, 2, 3))
    found = squared_norm(inputs, slopes, implementation=implementation)
    np.testing.assert_allclose(found, exact, rtol=1e-12)


def test_gradients_and_vmap_agree_with_the_reference():
    stacked = tuple(jnp.stack([x, 2 * x]) for x in operands("many positions"))

    def slopes(implementation):
        def loss(*arrays):
            return jnp.sum(
                jnp.sin(squared_norm(*arrays, implementation=implementation))
            )

        return jax.jit(jax.vmap(jax.grad(loss, (0, 1))))(*stacked)

    for ours, reference in zip(slopes(None), slopes("reference"), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-12)


def test_unknown_forms_are_refused():
    with pytest.raises(ValueError, match="no implementation 'fast'; choose one of ref"):
        squared_norm(*operands("one position"), implementation="fast")
