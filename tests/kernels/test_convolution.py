"""Every form of the convolution equals XLA's, in value and in every derivative."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_kernels.convolution import IMPLEMENTATIONS, conv2d
from unlearn_kernels.target import targeting

TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 2e-2}


class Case(NamedTuple):
    """One convolution: images (n, h, w, c), kernel (kh, kw, i, o), options."""

    images: tuple[int, int, int, int]
    kernel: tuple[int, int, int, int]
    options: dict[str, Any]


CASES = {
    "3x3": Case((3, 7, 6, 4), (3, 3, 4, 5), {}),
    "3x3-one-channel": Case((2, 6, 6, 1), (3, 3, 1, 4), {}),
    "3x3-valid": Case((2, 6, 7, 4), (3, 3, 4, 3), {"padding": "VALID"}),
    "3x3-pairs": Case((2, 5, 6, 4), (3, 3, 4, 3), {"padding": ((2, 0), (1, 3))}),
    "3x3-cropped": Case((2, 7, 7, 4), (3, 3, 4, 3), {"padding": ((-1, 1), (1, -2))}),
    "3x3-one-output": Case((2, 3, 3, 4), (3, 3, 4, 2), {"padding": "VALID"}),
    "3x3-blocks": Case((5, 34, 32, 4), (3, 3, 4, 3), {}),
    "1x1": Case((2, 4, 5, 3), (1, 1, 3, 4), {}),
    "1x1-stride": Case((2, 5, 5, 3), (1, 1, 3, 4), {"strides": (2, 2)}),
    "3x3-stride": Case((2, 7, 6, 4), (3, 3, 4, 3), {"strides": (2, 2)}),
    "5x5-stride": Case(
        (2, 8, 9, 3), (5, 5, 3, 4), {"strides": (2, 2), "padding": ((2, 2), (2, 2))}
    ),
    "5x3-strides": Case((2, 9, 6, 3), (5, 3, 3, 2), {"strides": (2, 1)}),
    "4x2-even": Case((2, 6, 5, 5), (4, 2, 5, 2), {}),
    "1x3-row": Case((2, 4, 6, 3), (1, 3, 3, 2), {}),
    "3x3-dilated": Case((2, 9, 8, 4), (3, 3, 4, 3), {"dilation": (2, 3)}),
    "3x3-groups": Case((2, 6, 5, 6), (3, 3, 3, 4), {"groups": 2}),
    "3x3-depthwise": Case((2, 6, 5, 4), (3, 3, 1, 8), {"groups": 4, "strides": (2, 1)}),
}
WINOGRAD = (
    "3x3",
    "3x3-pairs",
    "3x3-one-output",
    "3x3-blocks",
    "5x5-stride",
    "5x3-strides",
)
FORMS = [("patches", name, "float64") for name in CASES]
FORMS += [("winograd", name, "float64") for name in WINOGRAD]
FORMS += [
    ("patches", "3x3", "float32"),
    ("winograd", "3x3", "float32"),
]


def arrays(case, dtype, seed=0):
    """Images, kernel, and a direction for each of them."""
    draw = np.random.default_rng(seed)
    shapes = (case.images, case.kernel) * 2
    return [jnp.asarray(draw.normal(size=shape), dtype) for shape in shapes]


@functools.cache
def derivatives(implementation, name, dtype):
    """Value, cotangents, tangent, Hessian product of one form, in one compilation."""
    case = CASES[name]

    @jax.jit
    def everything(x, k, dx, dk):
        def convolve(x, k):
            return conv2d(x, k, **case.options, implementation=implementation)

        def loss(x, k):
            return jnp.mean(jnp.sin(convolve(x, k)))

        gradient = jax.grad(loss, (0, 1))
        value, tangent = jax.jvp(convolve, (x, k), (dx, dk))
        return {
            "value": value,
            "tangent": tangent,
            "gradient": gradient(x, k),
            "product": jax.jvp(gradient, (x, k), (dx, dk))[1],
        }

    with jax.default_matmul_precision("highest"):
        return everything(*arrays(case, dtype))


def assert_close(actual, expected, dtype):
    """Agree within the dtype's tolerance, relative to the largest expected value."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        assert a.dtype == e.dtype
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        np.testing.assert_allclose(
            a, e, rtol=0, atol=TOLERANCE[dtype] * np.abs(e).max()
        )


@pytest.mark.parametrize(("implementation", "name", "dtype"), FORMS)
@pytest.mark.parametrize("law", ["value", "tangent", "gradient", "product"])
def test_form_equals_reference(implementation, name, dtype, law):
    actual = derivatives(implementation, name, dtype)[law]
    assert_close(actual, derivatives("reference", name, dtype)[law], dtype)


@pytest.mark.parametrize("implementation", ["patches", "winograd"])
def test_linear_map_and_its_transpose_are_adjoint(implementation):
    case = CASES["3x3-blocks"]
    x, k, dx, dk = arrays(case, "float64")

    def convolve(x, k):
        return conv2d(x, k, implementation=implementation)

    @jax.jit
    def products(x, k, dx, dk):
        outputs, pushforward = jax.linearize(convolve, x, k)
        pullback = jax.linear_transpose(pushforward, x, k)
        u = jnp.cos(outputs)
        back = pullback(u)
        return jnp.vdot(u, pushforward(dx, dk)), jnp.vdot(back[0], dx) + jnp.vdot(
            back[1], dk
        )

    left, right = products(x, k, dx, dk)
    np.testing.assert_allclose(left, right, rtol=1e-10)


@pytest.mark.parametrize("implementation", ["patches", "winograd"])
def test_reverse_over_reverse_equals_forward_over_reverse(implementation):
    case = CASES["3x3"]
    x, k, _, dk = arrays(case, "float64")

    def slope(k, x):
        outputs = lambda k: conv2d(x, k, implementation=implementation)  # noqa: E731
        return jax.grad(lambda k: jnp.mean(jnp.sin(outputs(k))))(k)

    @jax.jit
    def both(x, k, dk):
        reverse = jax.grad(lambda k: jnp.vdot(slope(k, x), dk))(k)
        return reverse, jax.jvp(lambda k: slope(k, x), (k,), (dk,))[1]

    reverse, forward = both(x, k, dk)
    assert_close(reverse, forward, "float64")


@pytest.mark.parametrize(
    ("implementation", "name", "axes"),
    [
        ("patches", "3x3", (None, 0)),
        ("patches", "3x3", (0, None)),
        ("patches", "3x3", (0, 0)),
        ("patches", "3x3-groups", (0, 0)),
        ("patches", "3x3-depthwise", (None, 0)),
        ("winograd", "3x3-blocks", (None, 0)),
        ("winograd", "3x3-blocks", (0, 0)),
    ],
)
def test_vmap_equals_a_loop_over_members(implementation, name, axes):
    case = CASES[name]
    members = [arrays(case, "float64", seed)[:2] for seed in range(3)]
    operands = [
        members[0][i] if axis is None else jnp.stack([m[i] for m in members])
        for i, axis in enumerate(axes)
    ]

    def slope(x, k, implementation=implementation):
        outputs = functools.partial(
            conv2d, **case.options, implementation=implementation
        )
        return jax.grad(lambda x, k: jnp.mean(jnp.sin(outputs(x, k))), (0, 1))(x, k)

    together = jax.jit(jax.vmap(slope, axes))(*operands)
    single = jax.jit(functools.partial(slope, implementation="reference"))
    for i in range(3):
        one = [
            operand if axis is None else operand[i]
            for operand, axis in zip(operands, axes, strict=True)
        ]
        member = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        assert_close(member, single(*one), "float64")


@pytest.mark.parametrize("implementation", ["patches", "winograd"])
def test_per_example_gradients_sum_to_the_gradient(implementation):
    x, k, _, _ = arrays(CASES["3x3"], "float64")

    def total(k, x):
        return jnp.sum(jnp.sin(conv2d(x, k, implementation=implementation)))

    each = jax.jit(jax.vmap(jax.grad(lambda k, x: total(k, x[None])), (None, 0)))(k, x)
    assert_close(jnp.sum(each, axis=0), jax.jit(jax.grad(total))(k, x), "float64")


@pytest.mark.parametrize("implementation", ["patches", "winograd"])
def test_loop_equals_unrolled(implementation):
    x, _, _, _ = arrays(CASES["3x3-blocks"], "float64")
    k = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, 4, 4)) / 6)

    def layer(x, k):
        return jnp.tanh(conv2d(x, k, implementation=implementation))

    def looped(k):
        return jnp.sum(jax.lax.fori_loop(0, 2, lambda _, x: layer(x, k), x))

    def unrolled(k):
        return jnp.sum(layer(layer(x, k), k))

    assert_close(
        jax.jit(jax.grad(looped))(k), jax.jit(jax.grad(unrolled))(k), "float64"
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_stays_bfloat16_and_near_float32(implementation):
    x, k, _, _ = arrays(CASES["3x3"], "bfloat16")
    outputs = conv2d(x, k, implementation=implementation)
    exact = conv2d(x.astype("float32"), k.astype("float32"), implementation="reference")
    assert outputs.dtype == jnp.bfloat16
    assert_close(outputs, exact.astype("bfloat16"), "bfloat16")


def primitives(shapes, **options):
    """Text of the traced convolution under the default implementation."""
    x, k = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    with targeting("cpu"):
        return str(jax.make_jaxpr(functools.partial(conv2d, **options))(x, k))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_default_on_cpu_never_meets_xlas_convolution(case):
    traced = primitives((case.images, case.kernel), **case.options)
    assert "conv_general_dilated" not in traced


@pytest.mark.parametrize(
    ("images", "kernel", "stride", "products"),
    [
        ((128, 16, 16, 128), (3, 3, 128, 128), 1, 16),
        ((128, 32, 32, 64), (5, 5, 64, 128), 2, 16),
        ((128, 16, 16, 16), (3, 3, 16, 32), 1, 1),
        ((1, 16, 16, 64), (3, 3, 64, 64), 1, 1),
        ((128, 16, 16, 64), (3, 3, 64, 128), 2, 1),
    ],
)
def test_wide_three_by_three_takes_sixteen_products(images, kernel, stride, products):
    traced = primitives((images, kernel), strides=(stride, stride))
    assert traced.count("dot_general") == products


@pytest.mark.parametrize("name", ["1x1", "3x3-stride", "3x3-dilated", "3x3-groups"])
def test_winograd_refuses_other_kernels(name):
    case = CASES[name]
    x, k, _, _ = arrays(case, "float32")
    with pytest.raises(NotImplementedError, match="implementation='patches'"):
        conv2d(x, k, **case.options, implementation="winograd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"implementation": "fast"}, "choose one of reference, patches, winograd"),
        ({"padding": "FULL"}, "'SAME', 'VALID' or two pairs"),
        ({"padding": ((1, 1),)}, "one .low, high. pair for rows and one for columns"),
        ({"padding": "VALID", "dilation": (4, 1)}, "pad more, or take a smaller"),
        ({"strides": (0, 1)}, "at least 1"),
        ({"groups": 2}, "i must be 4 / groups"),
    ],
)
def test_impossible_options_are_refused(change, message):
    x, k, _, _ = arrays(CASES["3x3"], "float32")
    with pytest.raises(ValueError, match=message):
        conv2d(x, k, **change)


def test_operands_that_do_not_fit_are_refused():
    x, k, _, _ = arrays(CASES["3x3"], "float32")
    with pytest.raises(ValueError, match="cast one of them"):
        conv2d(x, k.astype("float64"))
    with pytest.raises(ValueError, match="4 channels in 1 groups"):
        conv2d(x, k[:, :, :3])
    with pytest.raises((ValueError, TypeError)):
        conv2d(x[0], k)
