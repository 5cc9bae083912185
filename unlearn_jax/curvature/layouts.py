"""How an operation that is linear in its weight looks as ``out = inputs · weight``.

Every such operation is brought to one form, with g groups, t positions, i numbers in
and o numbers out: inputs (g, t, i), weight (g, i, o), outputs (g, t, o). The gradient
of an example with respect to the weight is then Σₜ inputsₜ ⊗ slopesₜ.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from unlearn_jax.types import Array


class Layout(NamedTuple):
    """Description: maps between an operation's own axes and the common form.

    Attributes:
        inputs: Data operand -> (g, t, i).
        slopes: Cotangent of the result -> (g, t, o).
        weight: Weight operand (or a vector like it) -> (g, i, o).
        unweight: The inverse of ``weight``.
    """

    inputs: Callable[[Any], Any]
    slopes: Callable[[Any], Any]
    weight: Callable[[Any], Any]
    unweight: Callable[[Any], Any]


def dot_layout(params: dict[str, Any], shapes: Sequence[Any], weight: int) -> Layout:
    """Of a ``dot_general`` whose operand ``weight`` (0 or 1) is the weight."""
    contract, batch = params["dimension_numbers"]
    ranks = [len(shape) for shape in shapes]
    free = [
        [axis for axis in range(rank) if axis not in (*contract[side], *batch[side])]
        for side, rank in enumerate(ranks)
    ]
    data = 1 - weight
    groups = int(np.prod([shapes[data][axis] for axis in batch[data]]))
    taken = int(np.prod([shapes[data][axis] for axis in contract[data]]))
    positions = int(np.prod([shapes[data][axis] for axis in free[data]]))
    given = int(np.prod([shapes[weight][axis] for axis in free[weight]]))

    def inputs(value: Array) -> Array:
        order = (*batch[data], *free[data], *contract[data])
        return value.transpose(order).reshape(groups, positions, taken)

    def slopes(value: Array) -> Array:
        if weight == 1:
            return value.reshape(groups, positions, given)
        return value.reshape(groups, given, positions).transpose(0, 2, 1)

    order = (*batch[weight], *contract[weight], *free[weight])
    return Layout(
        inputs, slopes, *_weight_maps(shapes[weight], order, (groups, taken, given))
    )


def _weight_maps(
    shape: Sequence[int], order: Sequence[int], form: tuple[int, int, int]
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    ordered = [shape[axis] for axis in order]
    back = tuple(int(axis) for axis in np.argsort(order))
    return (
        lambda value: value.transpose(order).reshape(form),
        lambda value: value.reshape(ordered).transpose(back),
    )


def convolution_layout(params: dict[str, Any], shapes: Sequence[Any]) -> Layout:
    """Of ``conv_general_dilated`` whose kernel is the weight: inputs become patches.

    Strides, dilations of either side (transposed convolutions), any padding and groups.
    """
    numbers = params["dimension_numbers"]
    groups = params["feature_group_count"]
    batch, channel, *spatial = numbers.lhs_spec
    last, first, *taps = numbers.rhs_spec
    out_batch, out_channel, *out_spatial = numbers.out_spec
    kernel = shapes[1]
    sizes = [kernel[axis] for axis in taps]
    features = kernel[last] // groups
    per_group = kernel[first]

    def inputs(value: Array) -> Array:
        images = value.transpose(batch, *spatial, channel)
        patches = _patches(images, sizes, params)  # (n, …, taps, channels)
        *positions, count, _ = patches.shape
        split = patches.reshape(-1, count, groups, per_group)
        total = int(np.prod(positions))
        return split.transpose(2, 0, 1, 3).reshape(groups, total, count * per_group)

    def slopes(value: Array) -> Array:
        moved = value.transpose(out_batch, *out_spatial, out_channel)
        return moved.reshape(-1, groups, features).transpose(1, 0, 2)

    def weight(value: Array) -> Array:
        moved = value.transpose(*taps, first, last)
        split = moved.reshape(-1, groups, features)
        return split.transpose(1, 0, 2)

    back = tuple(int(axis) for axis in np.argsort((*taps, first, last)))

    def unweight(value: Array) -> Array:
        joined = value.transpose(1, 0, 2)
        return joined.reshape(*sizes, per_group, kernel[last]).transpose(back)

    return Layout(inputs, slopes, weight, unweight)


def _patches(images: Array, sizes: Sequence[int], params: dict[str, Any]) -> Array:
    """Windows of (n, *spatial, c) images, all taps: (n, *windows, taps, c).

    By slices: XLA's own patches are a convolution, which is slow in loops on CPU.
    """
    config = [
        (low, high, step - 1)
        for (low, high), step in zip(
            params["padding"], params["lhs_dilation"], strict=True
        )
    ]
    zero = jnp.zeros((), images.dtype)
    framed = lax.pad(images, zero, [(0, 0, 0), *config, (0, 0, 0)])
    strides, apart = params["window_strides"], params["rhs_dilation"]
    counts = [
        (extent - ((size - 1) * gap + 1)) // stride + 1
        for extent, size, gap, stride in zip(
            framed.shape[1:-1], sizes, apart, strides, strict=True
        )
    ]
    slices = []
    for tap in itertools.product(*map(range, sizes)):
        start = [index * gap for index, gap in zip(tap, apart, strict=True)]
        stop = [
            first + (count - 1) * stride + 1
            for first, count, stride in zip(start, counts, strides, strict=True)
        ]
        slices.append(
            lax.slice(
                framed,
                (0, *start, 0),
                (framed.shape[0], *stop, framed.shape[-1]),
                (1, *strides, 1),
            )
        )
    return jnp.stack(slices, axis=-2)


def looks_up_rows(params: dict[str, Any], shapes: Sequence[Any]) -> bool:
    """Whether a ``gather`` picks whole rows of a table, as an embedding does."""
    numbers = params["dimension_numbers"]
    table, indices = shapes
    rank = len(indices)
    return (
        tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and tuple(params["slice_sizes"]) == (1, *table[1:])
        and indices[-1] == 1
        and tuple(numbers.offset_dims)
        == tuple(range(rank - 1, rank - 1 + len(table) - 1))
    )


def rows_read(params: dict[str, Any], indices: Array, rows: int) -> tuple[Array, Array]:
    """Rows of the table that a ``gather`` reads, and whether it reads the table at all.

    Indices out of range are moved to the nearest row (mode "clip") or read nothing.
    """
    wide = jnp.promote_types(indices.dtype, jnp.int32)
    own = indices[..., 0].astype(wide)
    inside = (own >= 0) & (own < rows)
    if params["mode"] == lax.GatherScatterMode.CLIP:
        inside = jnp.ones_like(inside)
    return jnp.clip(own, 0, rows - 1), inside
