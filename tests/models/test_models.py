import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.models import MODELS
from unlearn_jax.models.layers import Conv, max_pool

CLASSES = 3
# name: (shape of one example, options that make it small, width of its features)
SMALL = {
    "linear": ((2, 3), {}, 6),
    "mlp": ((2, 3), {"widths": (5, 4)}, 4),
    "cnn": ((9, 8, 2), {"width": 2, "hidden": 5}, 5),
    "resnet9": ((11, 12, 2), {"widths": (2, 3, 4, 5)}, 5),
    "resnet18": ((8, 8, 1), {"width": 2}, 16),
}
NORMALISED = {"resnet9", "resnet18"}
IMAGES = ["cnn", "resnet9", "resnet18"]


def build(name, **options):
    shape, small, _ = SMALL[name]
    return MODELS[name](shape, CLASSES, **{**small, **options})


def shapes(model, shape, dtype, n=4):
    """Abstract variables, outputs, features, and the training step's results."""
    key = jax.random.key(0)
    variables = jax.eval_shape(model.init, key)
    inputs = jax.ShapeDtypeStruct((n, *shape), dtype)
    return (
        variables,
        jax.eval_shape(model.apply, variables, inputs),
        jax.eval_shape(model.features, variables, inputs),
        *jax.eval_shape(model.apply_train, key, variables, inputs),
    )


def dtypes(values):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(values)}


def plausible_variables(model):
    """Initial values without compiling ``init``: He kernels, ones, zeros."""
    random = np.random.default_rng(0)

    def fill(path, leaf):
        name = tree.path_names(path)[-1]
        if name == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            values = random.standard_normal(leaf.shape) * np.sqrt(2 / fan_in)
        else:
            values = np.full(leaf.shape, float(name in ("scale", "var")))
        return jnp.asarray(values, leaf.dtype)

    like = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(fill, like)


def test_every_model_is_tried_here():
    assert {*SMALL, "transformer"} == set(MODELS)  # that one in test_transformer.py


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SMALL)
def test_shapes_and_dtypes_are_those_asked_for_everywhere(name, dtype):
    shape, _, width = SMALL[name]
    variables, outputs, features, trained, moved = shapes(
        build(name, dtype=jnp.dtype(dtype)), shape, dtype
    )
    assert outputs.shape == trained.shape == (4, CLASSES)
    assert features.shape == (4, width)
    assert dtypes((variables, outputs, features, trained)) == {dtype}
    assert moved == variables
    assert bool(variables.stats) == (name in NORMALISED)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "linear"])
def test_compute_dtype_changes_the_arithmetic_only(name):
    shape, _, _ = SMALL[name]
    full, half = build(name), build(name, compute_dtype=jnp.bfloat16)
    variables, outputs, features, trained, moved = shapes(half, shape, "float32")
    assert features.dtype == "bfloat16"
    assert dtypes((variables, outputs, trained, moved)) == {"float32"}
    assert variables == jax.eval_shape(full.init, jax.random.key(0))


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet9"])
def test_bfloat16_outputs_are_close_to_float32_outputs(name):
    full, half = build(name), build(name, compute_dtype=jnp.bfloat16)
    variables = plausible_variables(full)
    inputs = np.random.default_rng(1).standard_normal((4, *SMALL[name][0]))
    inputs = jnp.asarray(inputs, jnp.float32)
    expected = np.asarray(jax.jit(full.apply)(variables, inputs))
    got = np.asarray(jax.jit(half.apply)(variables, inputs))
    assert 0 < np.abs(got - expected).max() < 5e-2 * np.abs(expected).max()


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("shape", [(64,), (3, 28, 28), (2, 2, 3), (8, 3, 1)])
def test_examples_that_are_no_images_are_refused(name, shape):
    with pytest.raises(ValueError, match=rf"{name} needs images of shape \(height"):
        MODELS[name](shape, CLASSES)


@pytest.mark.parametrize(
    ("name", "side"), [("cnn", 4), ("resnet9", 11), ("resnet18", 8)]
)
def test_the_smallest_image_allowed_works_and_the_next_smaller_is_refused(name, side):
    _, small, _ = SMALL[name]
    shape = (side, side, 1)
    model = MODELS[name](shape, CLASSES, **small)
    variables = jax.eval_shape(model.init, jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((4, *shape), jnp.float32)
    assert jax.eval_shape(model.apply, variables, inputs).shape == (4, CLASSES)
    with pytest.raises(ValueError, match=f"at least {side} x {side} pixels"):
        MODELS[name]((side, side - 1, 1), CLASSES, **small)


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "options", "count"),
    [
        ("resnet18", (32, 32, 3), 10, {}, 11_173_962),
        ("resnet9", (32, 32, 3), 10, {}, 2_274_880),
        ("cnn", (28, 28, 1), 10, {}, 160 + 4640 + 7 * 7 * 32 * 128 + 128 + 1290),
        ("mlp", (8, 8), 10, {}, 64 * 128 + 128 + 128 * 128 + 128 + 1290),
        ("mlp", (4,), 2, {"widths": ()}, 4 * 2 + 2),
        ("linear", (8, 8), 10, {}, 650),
    ],
)
def test_parameters_are_counted_exactly(name, shape, outputs, options, count):
    model = MODELS[name](shape, outputs, **options)
    assert tree.size(jax.eval_shape(model.init, jax.random.key(0)).params) == count


def test_the_linear_model_is_the_affine_map_of_its_parameters(key):
    model = build("linear", dtype=jnp.float64)
    zero = model.init(key)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(zero.params))
    params = jax.tree.map(
        lambda leaf: jnp.arange(1.0, leaf.size + 1).reshape(leaf.shape), zero.params
    )
    inputs = np.random.default_rng(0).standard_normal((4, 2, 3))
    expected = inputs.reshape(4, 6) @ params["head"]["kernel"]
    expected = expected + np.asarray(params["head"]["bias"])[None]
    got = model.apply(zero._replace(params=params), inputs)
    assert_trees_close(got, expected, rtol=1e-12)


def test_initial_values_depend_on_the_key_alone():
    init = jax.jit(build("mlp", widths=()).init)
    first, again, other = (init(jax.random.key(i)) for i in (0, 0, 1))
    assert_trees_close(first, again, rtol=0)
    assert np.any(first.params["head"]["kernel"] != other.params["head"]["kernel"])


def test_the_convolution_has_he_variance_over_its_fan_in(key):
    from flax import nnx

    kernel = Conv(8, 512, rngs=nnx.Rngs(params=key)).kernel[...]
    assert kernel.shape == (3, 3, 8, 512)
    np.testing.assert_allclose(np.var(kernel), 2 / (9 * 8), rtol=0.02)


def test_max_pool_takes_the_largest_of_each_square_and_drops_the_rest():
    images = np.random.default_rng(0).standard_normal((2, 5, 7, 3))
    expected = np.zeros((2, 2, 3, 3))
    for i in range(2):
        for j in range(3):
            square = images[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            expected[:, i, j] = square.max(axis=(1, 2))
    assert_trees_close(max_pool(jnp.asarray(images)), expected, rtol=0)
