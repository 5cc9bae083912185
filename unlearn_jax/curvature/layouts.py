"""How an operation that is linear in its weight looks as ``out = inputs · weight``.

Every such operation is brought to one form, with g groups, t positions, i numbers in
and o numbers out: inputs (g, t, i), weight (g, i, o), outputs (g, t, o). The gradient
of an example with respect to the weight is then Σₜ inputsₜ ⊗ slopesₜ. A table whose
rows are looked up has the form (v, *row), and slopes (t, *row).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from unlearn_jax.curvature.jax_forms import Convolution, Gather, Product
from unlearn_jax.curvature.steps import Steps, backward, forward
from unlearn_jax.types import Array


class Layout(NamedTuple):
    """Description: maps between an operation's own axes and the common form.

    Attributes:
        inputs: Data operand -> (g, t, i).
        slopes: Cotangent of the result -> (g, t, o).
        steps: From the weight operand to (g, i, o).
        shape: Of the weight operand.
    """

    inputs: Callable[[Any], Any]
    slopes: Callable[[Any], Any]
    steps: Steps
    shape: tuple[int, ...]

    def weight(self, value: Any) -> Any:
        """Weight operand, or an array like it, in the common form."""
        return forward(self.steps, value)

    def unweight(self, value: Any) -> Any:
        """The inverse of :meth:`weight`."""
        return backward(self.steps, self.shape, value)


class Lookup(NamedTuple):
    """Description: how the rows of a table, along one of its axes, are looked up.

    Attributes:
        column: Which entry of a start is the row's number.
        rows: Of the table.
        offset: Axes of the result that run through one row.
        order: Axes of the result, those of the indices first.
        row: Sizes of a row.
        steps: From the table to (v, *row).
        shape: Of the table.
        clip: Numbers out of range name the nearest row; else they read nothing.
    """

    column: int
    rows: int
    offset: tuple[int, ...]
    order: tuple[int, ...]
    row: tuple[int, ...]
    steps: Steps
    shape: tuple[int, ...]
    clip: bool

    def slopes(self, value: Any) -> Any:
        """Cotangent of the result -> (t, *row)."""
        return value.transpose(self.order).reshape(-1, *self.row)

    def unweight(self, value: Any) -> Any:
        """From (v, *row) to an array like the table."""
        return backward(self.steps, self.shape, value)

    def read(self, starts: Array) -> tuple[Array, Array]:
        """Row numbers, and whether the table is read there at all."""
        wide = jnp.promote_types(starts.dtype, jnp.int32)
        own = starts[..., self.column].astype(wide)
        inside = (own >= 0) & (own < self.rows)
        if self.clip:
            inside = jnp.ones_like(inside)
        return jnp.clip(own, 0, self.rows - 1), inside


def dot_layout(product: Product, shapes: Sequence[Any], weight: int) -> Layout:
    """Of a matrix product whose operand ``weight`` (0 or 1) is the weight."""
    contract, batch = product.contract, product.batch
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
    steps = (("transpose", order), ("reshape", (groups, taken, given)))
    return Layout(inputs, slopes, steps, tuple(shapes[weight]))


def convolution_layout(found: Convolution, shapes: Sequence[Any]) -> Layout:
    """Of a convolution whose kernel is the weight: inputs become patches.

    Strides, dilations of either side (transposed convolutions), any padding and groups.
    """
    groups = found.groups
    batch, channel, *spatial = found.images
    last, first, *taps = found.kernel
    out_batch, out_channel, *out_spatial = found.results
    kernel = shapes[1]
    sizes = [kernel[axis] for axis in taps]
    features = kernel[last] // groups
    per_group = kernel[first]

    def inputs(value: Array) -> Array:
        images = value.transpose(batch, *spatial, channel)
        patches = _patches(images, sizes, found)  # (n, …, taps, channels)
        *positions, count, _ = patches.shape
        split = patches.reshape(-1, count, groups, per_group)
        total = int(np.prod(positions))
        return split.transpose(2, 0, 1, 3).reshape(groups, total, count * per_group)

    def slopes(value: Array) -> Array:
        moved = value.transpose(out_batch, *out_spatial, out_channel)
        return moved.reshape(-1, groups, features).transpose(1, 0, 2)

    window = int(np.prod(sizes)) * per_group
    steps = (
        ("transpose", (*taps, first, last)),
        ("reshape", (window, groups, features)),
        ("transpose", (1, 0, 2)),
    )
    return Layout(inputs, slopes, steps, tuple(kernel))


def _patches(images: Array, sizes: Sequence[int], found: Convolution) -> Array:
    """Windows of (n, *spatial, c) images, all taps: (n, *windows, taps, c).

    By slices: XLA's own patches are a convolution, which is slow in loops on CPU.
    """
    config = [
        (low, high, step - 1)
        for (low, high), step in zip(found.padding, found.spread, strict=True)
    ]
    zero = jnp.zeros((), images.dtype)
    framed = lax.pad(images, zero, [(0, 0, 0), *config, (0, 0, 0)])
    strides, apart = found.strides, found.apart
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


def lookup(
    found: Gather, table: Sequence[int], indices: Sequence[int]
) -> Lookup | None:
    """Of a gather that picks whole rows of a table along one axis; else None.

    Starts along other axes must not matter: a window that is as wide as the table lies
    at its beginning, wherever it was asked for, if starts are moved into the range.
    """
    kept = [axis for axis in range(len(table)) if axis not in found.collapsed]
    picked = [
        axis
        for axis in found.axes
        if found.sizes[axis] == 1 and (table[axis] != 1 or axis in found.collapsed)
    ]
    if len(picked) != 1 or len(kept) != len(found.offset):
        return None
    (axis,) = picked
    others = tuple(other for other in range(len(table)) if other != axis)
    whole = all(found.sizes[other] == table[other] for other in others)
    steady = len(found.axes) == 1 or found.clip or found.promised
    if not whole or not steady or not set(found.collapsed) <= {axis}:
        return None
    rank = len(indices) - 1 + len(found.offset)
    free = [at for at in range(rank) if at not in found.offset]
    return Lookup(
        column=found.axes.index(axis),
        rows=table[axis],
        offset=found.offset,
        order=(*free, *found.offset),
        row=tuple(table[other] for other in others),
        steps=(("transpose", (axis, *others)),) if axis else (),
        shape=tuple(table),
        clip=found.clip,
    )
