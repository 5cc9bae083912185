"""Random signs: the kernel's are those of the reference in every bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpus import lowered

from unlearn_kernels.sign_projection import IMPLEMENTATIONS, project_signs, signs
from unlearn_kernels.sign_projection.triton import project_signs_tiled

SEEDS = jnp.asarray([123456789, 4000000000], jnp.uint32)
SHAPES = {"less than a tile": (3, 5, 7), "tiles and rests": (19, 203, 545)}
TOLERANCE = {"float32": 3e-5, "bfloat16": 2e-2}
CALL = "__gpu$xla.gpu.triton"


def operands(shape, dtype):
    n, p, _ = SHAPES[shape]
    values = np.random.default_rng(0).normal(size=(n, p))
    places = jnp.arange(p, dtype=jnp.uint32) * 3 + 2**31
    return jnp.asarray(values, dtype), places


def test_the_kernel_has_the_signs_of_the_reference():
    places = jnp.asarray([0, 1, 7, 2**31, 2**32 - 1], jnp.uint32)
    one = jnp.eye(5, dtype=jnp.float32)
    found = project_signs_tiled(SEEDS, one, places, width=550, side=16, interpret=True)
    np.testing.assert_array_equal(found, np.float32(signs(SEEDS, places, 550)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_both_forms_are_the_product(shape, dtype):
    values, places = operands(shape, dtype)
    width = SHAPES[shape][2]
    matrix = np.float64(signs(SEEDS, places, width))
    exact = np.float64(values) @ matrix
    size = np.linalg.norm(np.float64(values), axis=1)[:, None]
    kernel = project_signs_tiled(
        SEEDS, values, places, width=width, examples=16, parameters=32, interpret=True
    )
    plain = project_signs(SEEDS, values, places, width=width)
    for found in (kernel, plain):
        assert found.dtype == dtype
        assert np.max(np.abs(np.float64(found) - exact) / size) < TOLERANCE[dtype]


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_programs_for_gpus_have_the_kernel(platform):
    def project(values, places):
        return project_signs(SEEDS, values, places, width=96)

    def shapes(dtype):
        return (
            jax.ShapeDtypeStruct((37, 203), dtype),
            jax.ShapeDtypeStruct((203,), "uint32"),
        )

    values, places = shapes("float32")
    assert CALL in lowered(project, values, places, platform=platform)

    def slope(values, places):
        return jax.grad(lambda v: jnp.sum(jnp.square(project(v, places))))(values)

    assert CALL in lowered(slope, values, places, platform=platform)
    assert CALL not in lowered(project, *shapes("float64"), platform=platform)


def test_what_there_is_not_is_refused():
    values, places = operands("less than a tile", "float32")
    with pytest.raises(ValueError, match="no implementation 'fast'; choose one of ref"):
        project_signs(SEEDS, values, places, width=4, implementation="fast")
    with pytest.raises(NotImplementedError, match="project_signs needs a GPU"):
        project_signs(SEEDS, values, places, width=4, implementation="triton")
    assert set(IMPLEMENTATIONS) == {"reference", "triton"}
