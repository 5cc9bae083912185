"""The Fisher diagonal of a large net fits where its gradient does."""

import jax
import jax.numpy as jnp
import pytest

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.per_example import block_size, example_bytes
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.models import MODELS
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Batch, Variables
from unlearn_kernels.cache import second_cache_bytes
from unlearn_kernels.target import targeting

pytestmark = pytest.mark.optimised

IMAGE, EXAMPLES = (32, 32, 3), 1024


def peak_bytes(function, *arguments):
    """Temporary and result, from the compiled program's own account."""
    analysis = jax.jit(function).lower(*arguments).compile().memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def images(count):
    return Batch(
        jax.ShapeDtypeStruct((count, *IMAGE), jnp.float32),
        jax.ShapeDtypeStruct((count,), jnp.int32),
        jax.ShapeDtypeStruct((count,), jnp.float32),
    )


def ratio(name, **options):
    model = MODELS[name](IMAGE, 10, **options)
    variables = jax.eval_shape(model.init, jax.random.key(0))

    def objective(variables: Variables):
        return bind(model, variables.stats, cross_entropy)

    def diagonal(variables, batch):
        return empirical_fisher_diagonal(objective(variables), variables.params, batch)

    def gradient(variables, batch):
        return jax.grad(objective(variables).total)(variables.params, batch)

    def size(variables, inputs):
        taped = tape(objective(variables).predict, variables.params, inputs)
        sizes.append(block_size(taped, EXAMPLES))

    sizes = []
    jax.eval_shape(size, variables, images(EXAMPLES).inputs)
    ours = peak_bytes(diagonal, variables, images(EXAMPLES))
    return ours / peak_bytes(gradient, variables, images(sizes[0]))


@pytest.mark.slow
def test_small_cnn_takes_at_most_twice_the_memory_of_a_batch_gradient():
    assert ratio("cnn", width=8, hidden=32) < 2


@pytest.mark.slow
def test_resnet18_takes_at_most_twice_the_memory_of_a_batch_gradient():
    assert ratio("resnet18") < 2


def test_blocks_are_smaller_where_a_layer_has_several_positions():
    def blocks(predict, params, *shape):
        taped = tape(predict, params, jax.ShapeDtypeStruct((EXAMPLES, *shape), float))
        return block_size(taped, EXAMPLES), example_bytes(taped)

    params = {"w": jnp.zeros((64, 64))}
    alone, _ = blocks(lambda p, x: x @ p["w"], params, 64)
    assert alone == EXAMPLES
    size, one = blocks(lambda p, x: jnp.mean(x @ p["w"], axis=1), params, 128, 64)
    assert size * one <= 6 * second_cache_bytes() < EXAMPLES * one
    with targeting("gpu"):
        size, one = blocks(lambda p, x: jnp.mean(x @ p["w"], axis=1), params, 128, 64)
    assert size == EXAMPLES
