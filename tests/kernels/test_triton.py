"""Kernels for GPUs: step by step on the CPU, lowered for GPUs that are absent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpus import lowered

from unlearn_kernels.fisher_diagonal import square_sum
from unlearn_kernels.fisher_diagonal.triton import square_sum_tiled
from unlearn_kernels.precision import summing
from unlearn_kernels.sign_projection import project_signs
from unlearn_kernels.squared_norm import squared_norm
from unlearn_kernels.squared_norm.triton import squared_norm_tiled
from unlearn_kernels.target import targeting
from unlearn_kernels.tiles import MOST_POSITIONS

SHAPES = {
    "one number": (1, 1, 1, 1, 1),
    "less than a tile": (5, 1, 7, 3, 4),
    "groups, tiles and rests": (3, 2, 21, 33, 17),
    "more positions than a span": (2, 1, 40, 16, 5),
}
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 5e-3}
CASES = pytest.mark.parametrize(
    ("shape", "dtype"),
    [(shape, "float32") for shape in SHAPES]
    + [("groups, tiles and rests", dtype) for dtype in ("bfloat16", "float16")],
)
TILES = {"side": 16, "span": 16, "interpret": True}
CALL = "__gpu$xla.gpu.triton"


def operands(shape, dtype, absent=0.0):
    n, g, t, i, o = SHAPES[shape]
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(n, g, t, i))
    weights = draw.uniform(0.5, 1, n)
    if n > 1:
        weights[0], inputs[0] = 0, absent
    arrays = inputs, draw.normal(size=(n, g, t, o)), weights
    return tuple(jnp.asarray(array, dtype) for array in arrays)


def gradients(inputs, slopes):
    pair = (np.asarray(x.astype("float32"), np.float64) for x in (inputs, slopes))
    return np.einsum("ngti,ngto->ngio", *pair)


def described(n, g, t, i, o, dtype="float32"):
    shapes = (n, g, t, i), (n, g, t, o), (n,)
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]


@CASES
def test_sums_of_squares_are_the_formula_and_skip_what_is_absent(shape, dtype):
    inputs, slopes, weights = operands(shape, dtype, absent=np.nan)
    found = square_sum_tiled(inputs, slopes, weights, parts=2, **TILES)
    there = np.asarray(weights) != 0
    squares = gradients(inputs[there], slopes[there]) ** 2
    scale = np.asarray(weights.astype("float32"), np.float64)[there]
    exact = np.einsum("n,ngio->gio", scale, squares)
    assert found.dtype == dtype
    near = TOLERANCE[dtype]
    np.testing.assert_allclose(np.float64(found), exact, near, near * exact.max())


@CASES
def test_squared_norms_are_the_formula(shape, dtype):
    inputs, slopes, _ = operands(shape, dtype)
    found = squared_norm_tiled(inputs, slopes, **TILES)
    exact = np.sum(gradients(inputs, slopes) ** 2, (1, 2, 3))
    assert found.dtype == dtype
    np.testing.assert_allclose(np.float64(found), exact, rtol=TOLERANCE[dtype])


def test_the_parts_of_the_examples_do_not_change_the_sum():
    arrays = operands("more positions than a span", "float32")
    found = [square_sum_tiled(*arrays, parts=parts, **TILES) for parts in (1, 2, 3)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-6)


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_programs_for_gpus_have_the_kernels(platform, dtype):
    arrays = described(8, 2, 80, 130, 48, dtype)
    assert CALL in lowered(square_sum, *arrays, platform=platform)
    assert CALL in lowered(squared_norm, *arrays[:2], platform=platform)


def test_where_a_kernel_would_lose_or_cannot_there_is_none():
    long = described(2, 1, MOST_POSITIONS + 1, 300, 300)
    double = described(8, 1, 80, 130, 48, "float64")
    for arrays in (long, double):
        assert CALL not in lowered(square_sum, *arrays)
        assert CALL not in lowered(squared_norm, *arrays[:2])
    assert CALL not in str(jax.make_jaxpr(square_sum)(*described(8, 1, 80, 130, 48)))


def test_derivatives_and_vmap_around_the_kernels_are_lowered():
    def loss(*arrays):
        return jnp.sum(square_sum(*arrays)) + jnp.sum(squared_norm(*arrays[:2]))

    stacked = [
        jax.ShapeDtypeStruct((2, *array.shape), array.dtype)
        for array in described(4, 1, 30, 20, 24)
    ]
    found = lowered(jax.vmap(loss), *stacked)
    assert found.count(CALL) >= 2
    both = lowered(jax.vmap(jax.value_and_grad(loss, (0, 1, 2))), *stacked)
    assert CALL in both


@pytest.mark.parametrize(
    ("operation", "name"), [(square_sum, "square_sum"), (squared_norm, "squared_norm")]
)
def test_what_the_kernels_cannot_do_is_named(operation, name):
    arrays = [jnp.ones(x.shape, x.dtype) for x in described(2, 1, 30, 4, 4, "float64")]
    arrays = arrays if operation is square_sum else arrays[:2]
    with pytest.raises(NotImplementedError, match=f"{name} needs a GPU, and .* a cpu"):
        operation(*arrays, implementation="triton")
    with targeting("gpu"), pytest.raises(NotImplementedError, match="got float64"):
        operation(*arrays, implementation="triton")


def test_inside_shard_map_with_its_checks_the_kernels_vary_as_their_operands():
    mesh = jax.sharding.AbstractMesh((2,), ("x",), (jax.sharding.AxisType.Auto,))
    over, whole = jax.P("x"), jax.P()
    inputs, slopes, weights = described(8, 1, 30, 20, 24)
    values = jax.ShapeDtypeStruct((8, 20), "float32")

    def traced(function, *shapes, out):
        specs = tuple(over for _ in shapes)
        inner = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out)
        return str(jax.make_jaxpr(inner)(*shapes))

    def added(*operands):
        return jax.lax.psum(square_sum(*operands), "x")

    def projected(rows):
        places = jnp.arange(20, dtype=jnp.uint32)
        return project_signs(jnp.uint32([1, 2]), rows, places, width=40)

    with targeting("gpu"):
        assert "square_sum" in traced(added, inputs, slopes, weights, out=whole)
        assert "squared_norm" in traced(squared_norm, inputs, slopes, out=over)
        assert "project_signs" in traced(projected, values, out=over)


def test_the_switch_of_precision_reaches_the_kernels():
    arrays = described(8, 1, 80, 130, 48)
    with summing("fast"):
        fast = lowered(square_sum, *arrays)
    assert fast != lowered(square_sum, *arrays)
