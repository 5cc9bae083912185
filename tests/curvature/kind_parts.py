"""What the nets of ``layer_kinds`` are made of: fixed numbers, wrappers, a head."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unlearn_jax.models import MODELS
from unlearn_jax.types import Variables

COUNT, OUTPUTS = 5, 3


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def from_module(make, shape):
    """A Flax module in evaluation mode, its statistics moved away from zero and one."""
    module = make(nnx.Rngs(0))
    module.eval()
    graph, found, rest = nnx.split(module, nnx.Param, ...)
    params = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float64) + 0.1 * draw(leaf.size, *leaf.shape),
        nnx.to_pure_dict(found),
    )
    rest = jax.tree.map(_moved, rest)

    def predict(params, inputs):
        fresh = jax.tree.map(lambda leaf: leaf, found)
        nnx.replace_by_pure_dict(fresh, params)
        own = jax.tree.map(lambda leaf: leaf, rest)
        return head(nnx.merge(graph, fresh, own)(inputs))

    return params, predict, draw(1, COUNT, *shape)


def _moved(leaf):
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf.astype(jnp.float64) + 0.3
    return leaf


def head(values):
    """Any feature map to (n, OUTPUTS), without parameters, every number used."""
    flat = jnp.tanh(values.reshape(values.shape[0], -1))
    mixing = draw(99, flat.shape[1], OUTPUTS) / np.sqrt(flat.shape[1])
    return 3 * flat @ mixing


def net(params, function, shape):
    return params, lambda p, x: head(function(p, x)), draw(1, COUNT, *shape)


def model(name, shape, **options):
    built = MODELS[name](shape, OUTPUTS, dtype=jnp.float64, **options)
    init = built.init(jax.random.key(0))
    stats = jax.tree.map(lambda leaf: leaf + 0.3, init.stats)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * draw(leaf.size, *leaf.shape), init.params
    )
    return (
        params,
        lambda p, x: built.apply(Variables(p, stats), x),
        draw(1, COUNT, *shape),
    )
