"""Random sketches of per-example gradients, from their factors."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.curvature.contractions import formed, widened
from unlearn_jax.curvature.per_example import (
    DEVICE_BYTES,
    Gradients,
    Outer,
    factored_site,
    from_form,
    parameter_shapes,
    sites_of,
    to_form,
)
from unlearn_jax.curvature.tapping import Tape
from unlearn_jax.data.accumulate import collect
from unlearn_jax.train.door import check_real
from unlearn_jax.types import Array, Params, PRNGKey
from unlearn_kernels.target import target_platform

SKETCHED_NUMBERS = 2**16
"""Buckets of examples that are filled at once on CPU."""


def sketch(
    key: PRNGKey, taped: Tape, gradients: Gradients, *, width: int
) -> Float[Array, "n r"]:
    """Random projections whose inner products estimate ⟨gₙ, gₘ⟩ without bias.

    A count sketch of an outer product is the circular convolution of two count
    sketches, so inputs and slopes are sketched and no gradient is formed; all layers
    add into the same ``width`` buckets.

    Args:
        key: Draws buckets and signs; the same key gives comparable sketches.
        taped: From the same model.
        gradients: Of n examples.
        width: Buckets r; the variance of an inner product falls as 1/r.

    Raises:
        ValueError: complex parameters.

    Cost: t (i + o + r log r) operations a layer and example, in blocks of examples that
        stay in the cache on CPU.
    Source: Pham & Pagh 2013, Fast and scalable polynomial kernels via explicit feature
        maps. As published, for one product of two.
    """
    check_real("sketch", jax.tree.unflatten(taped.structure, parameter_shapes(taped)))

    def some(gradients: Gradients) -> Array:
        return _sketched(key, taped, gradients, width)

    positions = [g[0].shape[2] for g in gradients if isinstance(g, Outer)]
    numbers = width * max([1, *positions])
    cpu = target_platform() == "cpu"
    size = max(1, (SKETCHED_NUMBERS if cpu else DEVICE_BYTES // 64) // numbers)
    return collect(some, widened(gradients), batch_size=size)


def _sketched(key: PRNGKey, taped: Tape, gradients: Gradients, width: int) -> Array:
    total, joined = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)
    for leaf, gradient in enumerate(gradients):
        if not isinstance(gradient, Outer):
            whole = formed(taped, leaf, gradient)
            whole = whole.reshape(len(whole), -1)
            left, _ = jax.random.split(jax.random.fold_in(key, leaf))
            total = total + _count_sketch(left, whole, width)
            continue
        for g in range(gradient.inputs.shape[1]):
            keys = _group_keys(key, leaf, g)
            a, b = (
                jnp.fft.rfft(_count_sketch(own, part[:, g], width))
                for own, part in zip(keys, gradient, strict=True)
            )
            joined = joined + jnp.sum(a * b, axis=1)
    # All layers go back together.
    return total + jnp.fft.irfft(joined, width) if joined.ndim else total


def unsketch(key: PRNGKey, taped: Tape, vector: Float[Array, " r"]) -> Params:
    """What has with each gradient the product that its sketch has with a vector.

    The transpose of :func:`sketch`.

    Args:
        key: Of the sketches.
        taped: From the same model.
        vector: u, one number per bucket.

    Returns:
        Shaped like the parameters.

    Cost: one number read for each parameter.
    """
    width = len(vector)

    def one(leaf: int) -> Array:
        shape = taped.program.shapes[taped.program.inputs[leaf]]
        site = factored_site(sites_of(taped)[leaf])
        if site is None or site.kind != "product":
            left, _ = jax.random.split(jax.random.fold_in(key, leaf))
            buckets, signs = _buckets(left, shape.size, width, vector.dtype)
            return (vector[buckets] * signs).reshape(shape.shape)
        form = jax.eval_shape(lambda x: to_form(taped, leaf, x), shape).shape
        groups = []
        for g in range(form[0]):
            left, right = _group_keys(key, leaf, g)
            down, s = _buckets(left, form[1], width, vector.dtype)
            across, z = _buckets(right, form[2], width, vector.dtype)
            picked = vector[(down[:, None] + across[None]) % width]
            groups.append(picked * s[:, None] * z[None])
        return from_form(taped, leaf, jnp.stack(groups))

    leaves = [one(leaf) for leaf in range(taped.structure.num_leaves)]
    return jax.tree.unflatten(taped.structure, leaves)


def _group_keys(key: PRNGKey, leaf: int, group: int) -> tuple[Array, Array]:
    """A group is a part of the parameter of its own: offset by its number."""
    left, right = jax.random.split(jax.random.fold_in(key, leaf))
    return jax.random.fold_in(left, group), jax.random.fold_in(right, group)


def _buckets(key: PRNGKey, size: int, width: int, dtype: Any) -> tuple[Array, Array]:
    bucket_key, sign_key = jax.random.split(key)
    buckets = jax.random.randint(bucket_key, (size,), 0, width)
    return buckets, jax.random.rademacher(sign_key, (size,), dtype)


def _count_sketch(key: PRNGKey, values: Array, width: int) -> Array:
    """Σ over the last axis into ``width`` buckets with random signs, by segments."""
    buckets, signs = _buckets(key, values.shape[-1], width, values.dtype)
    moved = jnp.moveaxis(values, -1, 0)
    signed = moved * signs.reshape(-1, *(1,) * (moved.ndim - 1))
    return jnp.moveaxis(jax.ops.segment_sum(signed, buckets, width), 0, -1)
