"""Sum or collect a function over a data set in batches of one fixed size.

On one device nothing is padded or copied: the last batch overlaps the one before it,
and examples already seen get weight zero there.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from unlearn_jax.loop import Loop, repeat
from unlearn_jax.parallel.mesh import sum_over_data
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch
from unlearn_kernels.target import target_platform
from unlearn_kernels.varying import vary


def accumulate(
    function: Callable[..., Any],
    data: Batch,
    *constants: Any,
    batch_size: int = 256,
    loop: Loop = "device",
    mesh: Mesh | None = None,
) -> Any:
    """Σ over batches of ``function(batch, *constants)``.

    Args:
        function: From a Batch to a pytree of arrays; must respect ``weights``, since an
            example may appear a second time with weight zero. With ``loop="host"`` its
            compiled form is remembered: pass the same function object again.
        data: The examples; their order is kept.
        constants: Further arguments of ``function``: parameters, keys. Passed on, never
            captured.
        batch_size: Examples per call (and device); memory grows with it.
        loop: "device" or "host", see :mod:`unlearn_jax.loop`.
        mesh: From ``data_mesh``: each device sums over batches of its own part of the
            examples, then the sums are added. Where the examples do not divide over the
            devices, copies of the last one with weight zero fill up. Batches start
            anew on each device, so ``function`` must be a sum over examples. Call it
            inside ``jit``.

    Returns:
        The sum, in the structure and dtypes that ``function`` returns.

    Raises:
        ValueError: there are no examples, or ``loop="host"`` on a mesh.
    """
    if mesh is not None:
        if loop != "device":
            raise ValueError(
                f"accumulate got loop={loop!r} and a mesh, expected loop='device': "
                f"the devices of a mesh run one compiled loop each"
            )
        _size(leading_axis(data), batch_size)
        return sum_over_data(
            mesh,
            lambda part, shared: accumulate(
                function, part, *shared, batch_size=batch_size
            ),
            _fill_up(data, mesh.shape.get("data", 1)),
            constants,
        )
    n = leading_axis(data)
    size = _size(n, batch_size)
    # Only the host calls a body again; elsewhere remembering it keeps dead traces.
    make = _sum_body if loop == "host" else _sum_body.__wrapped__
    body = make(function, size)
    sample = jax.eval_shape(
        lambda d, c: function(_slice(d, 0, size), *c), data, constants
    )
    zero = vary(
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sample), sample
    )
    return repeat(-(-n // size), body, zero, (data, constants), loop=loop)


def collect(
    function: Callable[..., Any],
    inputs: Any,
    *constants: Any,
    batch_size: int | None = None,
    loop: Loop = "device",
) -> Any:
    """``function(inputs, *constants)`` for all examples, computed in batches.

    Args:
        function: From (b, …) inputs to a pytree with first axis b, example by example.
        inputs: Pytree with first axis n.
        constants: Further arguments of ``function``.
        batch_size: Examples per call; None takes 32 on CPU, where a small batch stays
            in the cache (twice as fast as 512 for a small CNN), and 512 elsewhere.
        loop: "device" or "host", see :mod:`unlearn_jax.loop`.

    Returns:
        Pytree with first axis n.

    Raises:
        ValueError: there are no examples.
    """
    n = leading_axis(inputs)
    if batch_size is None:
        batch_size = 32 if target_platform() == "cpu" else 512
    size = _size(n, batch_size)
    body = _collect_body(function, size)
    sample = jax.eval_shape(
        lambda x, c: function(jax.tree.map(lambda leaf: leaf[:size], x), *c),
        inputs,
        constants,
    )
    empty = jax.tree.map(
        lambda leaf: jnp.zeros((n, *leaf.shape[1:]), leaf.dtype), sample
    )
    empty = vary(empty, sample)
    return repeat(-(-n // size), body, empty, (inputs, constants), loop=loop)


def present(batch: Batch, kept: Any = False) -> Batch:
    """Another example in place of each one of weight zero: what it holds is not seen.

    Weights alone would not do: the derivative of 0 times NaN is NaN. The stand-in is
    the heaviest example, which the model is known to digest; zeros if all weigh zero.

    Args:
        batch: Examples with weights, negative ones too.
        kept: (n,) booleans: examples that stay whatever their weight, so that the
            derivative by a weight of zero is their own. See ``train.door.seen``.
    """
    weights = widened(batch.weights)
    heaviest = jnp.argmax(jnp.abs(weights))
    some = weights[heaviest] != 0

    def seen(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        stand_in = jnp.where(some, leaf[heaviest], jnp.zeros_like(leaf[0]))
        mask = ((weights != 0) | kept).reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(mask, leaf, stand_in[None])

    inputs, targets = jax.tree.map(seen, (batch.inputs, batch.targets))
    return Batch(inputs, targets, weights)


def widened(weights: Any) -> Array:
    """Weights in at least float32, so that no sum overflows; False is 0, True is 1."""
    weights = jnp.asarray(weights)
    return weights.astype(jnp.promote_types(weights.dtype, jnp.float32))


def mass(weights: Any) -> Array:
    """Σ wₙ to divide by, in at least float32; 1 where no example has weight.

    Weights that are not zero and sum to zero have no mean: dividing gives infinity.
    """
    weights = widened(weights)
    return jnp.where(jnp.any(weights != 0), jnp.sum(weights), 1)


def _fill_up(data: Batch, devices: int) -> Batch:
    extra = -data.weights.shape[0] % devices
    if not extra:
        return data

    def grow(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], extra, axis=0)])

    weights = jnp.pad(jnp.asarray(data.weights), (0, extra))
    inputs, targets = jax.tree.map(grow, (data.inputs, data.targets))
    return Batch(inputs, targets, weights)


def _slice(data: Any, start: Any, size: int) -> Any:
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), data
    )


def _size(examples: int, batch_size: int) -> int:
    if examples < 1 or batch_size < 1:
        raise ValueError(
            f"got {examples} examples in batches of {batch_size}, expected at least "
            f"one of each"
        )
    return min(batch_size, examples)


@functools.lru_cache(maxsize=64)
def _sum_body(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    def body(i: Any, total: Any, carried: Any) -> Any:
        data, constants = carried
        n = data.weights.shape[0]
        start = jnp.minimum(i * size, n - size)
        batch = _slice(data, start, size)
        fresh = start + jnp.arange(size) >= i * size
        batch = batch._replace(weights=jnp.where(fresh, batch.weights, 0))
        return jax.tree.map(jnp.add, total, function(batch, *constants))

    return body


@functools.lru_cache(maxsize=64)
def _collect_body(function: Callable[..., Any], size: int) -> Callable[..., Any]:
    def body(i: Any, filled: Any, carried: Any) -> Any:
        inputs, constants = carried
        n = jax.tree.leaves(inputs)[0].shape[0]
        start = jnp.minimum(i * size, n - size)
        values = function(_slice(inputs, start, size), *constants)
        return jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
                whole, part, start, axis=0
            ),
            filled,
            values,
        )

    return body
