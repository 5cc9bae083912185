"""Random projections of per-example gradients, and their transposes.

Every kind is a linear map P (width, p) with E[PᵀP] = I, so that inner products of
projections estimate those of the gradients. P is fixed by the key alone: its rows of
signs belong to single parameters, numbered within a leaf in the common form of
:func:`unlearn_jax.curvature.per_example.to_form`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Float, UInt32

from unlearn_jax.curvature.contractions import dense as formed_gradients
from unlearn_jax.curvature.per_example import (
    Gradient,
    Gradients,
    Outer,
    Rows,
    factored_site,
    from_form,
    parameter_shapes,
    sites_of,
    to_form,
)
from unlearn_jax.curvature.sketches import sketch, unsketch
from unlearn_jax.curvature.tapping import Tape
from unlearn_jax.train.door import check_real
from unlearn_jax.types import Array, Params, PRNGKey
from unlearn_kernels.precision import EXACT, wide
from unlearn_kernels.sign_projection import project_signs
from unlearn_kernels.sign_projection import signs as kernel_signs
from unlearn_kernels.target import target_platform

BLOCK_NUMBERS = 2**20
"""Entries of P that are held at once on CPU; there they stay in the cache."""
DEVICE_BLOCK_NUMBERS = 2**25
KINDS = ("sketch", "dense", "gaussian", "none")


def project(
    key: PRNGKey,
    taped: Tape,
    gradients: Gradients,
    *,
    kind: str,
    width: int,
    block: int | None = None,
) -> Float[Array, "n r"]:
    """P gₙ for each example: features whose inner products estimate ⟨gₙ, gₘ⟩.

    Args:
        key: Draws P; the same key gives comparable features for any batch.
        taped: From the same model.
        gradients: Of n examples.
        kind: "sketch": from the factors, gradients are never formed. "dense":
            independent signs, each a bit of a hash of the parameter's number, made
            where they are used. "gaussian": independent normal numbers. "none": the
            gradients themselves, whatever ``width`` says.
        width: Numbers that an example is left with; the variance of inner products
            falls as 1 / width.
        block: Parameters of a leaf whose entries of P and gradients are held at once;
            None chooses. The result does not depend on it but for rounding.

    Returns:
        In the dtype of the gradients, at least float32. The gradients that "dense"
        multiplies by signs are kept to 16 bits if they are float32: an error of
        about 3e-6 of the result, far below that of the projection.

    Raises:
        ValueError: unknown ``kind``, a width below one, or complex parameters.

    Cost: "dense" and "gaussian" 2 n p width operations and n × block numbers of memory;
        "sketch" t (i + o + width log width) operations a layer and example.
    Source: Park et al. 2023, arXiv 2303.14186, §3.2 (signs or normal numbers); Pham &
        Pagh 2013 (sketch). Differs: signs from a counter, in no order of batches.
    """
    check_projection(kind, width)
    check_real("project", jax.tree.unflatten(taped.structure, parameter_shapes(taped)))
    if kind == "none":
        leaves = jax.tree.leaves(formed_gradients(taped, gradients))
        return jnp.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)
    if kind == "sketch":
        return sketch(key, taped, gradients, width=width)
    parts = [
        project_leaf(key, taped, leaf, gradient, kind=kind, width=width, block=block)
        for leaf, gradient in enumerate(gradients)
    ]
    return sum(parts[1:], parts[0])


def lift(key: PRNGKey, taped: Tape, vector: Float[Array, " r"], *, kind: str) -> Params:
    """Pᵀ u: what makes ⟨P g, u⟩ = ⟨g, Pᵀ u⟩, shaped like the parameters.

    With it the products of one u with the projected gradients of many outputs are one
    derivative along a direction, whatever the number of outputs.

    Cost: each entry of P once for "dense" and "gaussian"; p numbers for "sketch".
    """
    width = vector.shape[0]
    check_projection(kind, width)
    shapes = parameter_shapes(taped)
    check_real("lift", jax.tree.unflatten(taped.structure, shapes))
    if kind == "none":
        like = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
        _, unflatten = jax.flatten_util.ravel_pytree(like)
        return jax.tree.unflatten(taped.structure, unflatten(vector))
    if kind == "sketch":
        return unsketch(key, taped, vector)
    leaves = [
        lift_leaf(key, taped, leaf, vector, kind=kind) for leaf in range(len(shapes))
    ]
    return jax.tree.unflatten(taped.structure, leaves)


def check_projection(kind: str, width: int) -> None:
    """Refuse an unknown kind or an impossible width.

    Raises:
        ValueError: what is wrong, and what there is to choose from.
    """
    if kind not in KINDS:
        raise ValueError(
            f"projection {kind!r} is unknown; choose from {', '.join(KINDS)}"
        )
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")


def project_leaf(
    key: PRNGKey,
    taped: Tape,
    leaf: int,
    gradient: Gradient,
    *,
    kind: str,
    width: int,
    block: int | None = None,
) -> Float[Array, "n r"]:
    """The part of P g that one leaf of the parameters gives; not for sketches."""
    dtype = wide(gradient[-1])
    examples = gradient[-1].shape[0]
    if not math.prod(form_of(taped, leaf)):
        return jnp.zeros((examples, width), dtype)
    blocks = _blocks(taped, leaf, gradient, block or _block_size(width))
    leaf_key = jax.random.fold_in(key, leaf)
    product, scale = _PRODUCTS[kind], width**-0.5

    def add(number: Any, total: Array) -> Array:
        values, places = blocks.read(number)
        return total + product(leaf_key, values.astype(dtype), places, width)

    total = jax.lax.fori_loop(
        0, blocks.number, add, jnp.zeros((examples, width), dtype)
    )
    return total * jnp.asarray(scale, dtype)


def lift_leaf(
    key: PRNGKey, taped: Tape, leaf: int, vector: Float[Array, " r"], *, kind: str
) -> Array:
    """The part of Pᵀ u of one leaf, shaped like it; not for sketches."""
    shape = form_of(taped, leaf)
    count = math.prod(shape)
    if not count:
        return jnp.zeros(shape, vector.dtype)
    size = max(1, min(count, _block_size(len(vector))))
    leaf_key = jax.random.fold_in(key, leaf)

    def rows(number: Any) -> Array:
        places = (number * size + jnp.arange(size)).astype(jnp.uint32)
        drawn = _ENTRIES[kind](leaf_key, places, len(vector)).astype(vector.dtype)
        return jnp.matmul(drawn, vector, precision=EXACT)

    found = jax.lax.map(rows, jnp.arange(-(-count // size))).reshape(-1)
    formed = found[:count].reshape(shape) * len(vector) ** -0.5
    factored = factored_site(sites_of(taped)[leaf]) is not None
    return from_form(taped, leaf, formed) if factored else formed


def form_of(taped: Tape, leaf: int) -> tuple[int, ...]:
    """Shape of a leaf in its common form: (g, i, o) of a product's weight."""
    shape = taped.program.shapes[taped.program.inputs[leaf]]
    if factored_site(sites_of(taped)[leaf]) is None:
        return shape.shape
    return jax.eval_shape(lambda x: to_form(taped, leaf, x), shape).shape


def signs(key: PRNGKey, places: UInt32[Array, " b"], width: int) -> Float[Array, "b r"]:
    """Independent signs for parameters of these numbers, in bfloat16."""
    return kernel_signs(_seeds(key), places, width)


def _seeds(key: PRNGKey) -> UInt32[Array, " 2"]:
    return jax.random.bits(key, (2,), jnp.uint32)


def normals(
    key: PRNGKey, places: UInt32[Array, " b"], width: int
) -> Float[Array, "b r"]:
    """Independent normal numbers for parameters of these numbers, in float32."""

    def row(place: Any) -> Array:
        return jax.random.normal(jax.random.fold_in(key, place), (width,), jnp.float32)

    return jax.vmap(row)(places)


_ENTRIES: Mapping[str, Callable[[Any, Any, int], Any]] = {
    "dense": signs,
    "gaussian": normals,
}


def _with_signs(key: PRNGKey, values: Array, places: Any, width: int) -> Array:
    return project_signs(_seeds(key), values, places, width=width)


def _with_normals(key: PRNGKey, values: Array, places: Any, width: int) -> Array:
    drawn = normals(key, places, width).astype(values.dtype)
    return jnp.matmul(values, drawn, precision=EXACT)


_PRODUCTS: Mapping[str, Callable[[Any, Any, Any, int], Any]] = {
    "dense": _with_signs,
    "gaussian": _with_normals,
}


class _Blocks(NamedTuple):
    """Description: a leaf's gradients, some parameters at a time.

    Attributes:
        number: Of blocks.
        read: From a block's number to values (n, b), and the numbers of these
            parameters. Values are zero beyond the end.
    """

    number: int
    read: Callable[[Any], Any]


def _blocks(taped: Tape, leaf: int, gradient: Gradient, size: int) -> _Blocks:
    if isinstance(gradient, Outer):
        return _outer_blocks(gradient, size)
    if isinstance(gradient, Rows):
        return _rows_blocks(gradient, form_of(taped, leaf)[0], size)
    values = gradient.values.reshape(len(gradient.values), -1)
    size = max(1, min(size, values.shape[1]))
    count = -(-values.shape[1] // size)
    values = _padded(values, count * size)

    def read(number: Any) -> Any:
        start = number * size
        part = jax.lax.dynamic_slice_in_dim(values, start, size, axis=1)
        return part, (start + jnp.arange(size)).astype(jnp.uint32)

    return _Blocks(count, read)


def _outer_blocks(gradient: Outer, size: int) -> _Blocks:
    n, groups, t, i = gradient.inputs.shape
    o = gradient.slopes.shape[3]
    columns = max(1, min(o, size))
    rows = max(1, min(i, size // columns))
    down, across = -(-i // rows), -(-o // columns)
    inputs = _padded(gradient.inputs, down * rows)
    slopes = _padded(gradient.slopes, across * columns)

    def read(number: Any) -> Any:
        group, rest = number // (down * across), number % (down * across)
        top, left = rest // across * rows, rest % across * columns
        a = jax.lax.dynamic_slice(inputs, (0, group, 0, top), (n, 1, t, rows))
        s = jax.lax.dynamic_slice(slopes, (0, group, 0, left), (n, 1, t, columns))
        if t == 1:
            values = a[:, 0, 0, :, None] * s[:, 0, 0, None, :]
        else:
            values = jnp.einsum("ntr,ntc->nrc", a[:, 0], s[:, 0], precision=EXACT)
        row = group * i + top + jnp.arange(rows)
        places = row[:, None] * o + (left + jnp.arange(columns))[None]
        return values.reshape(n, -1), places.reshape(-1).astype(jnp.uint32)

    return _Blocks(groups * down * across, read)


def _rows_blocks(gradient: Rows, table: int, size: int) -> _Blocks:
    """A table's gradients; what is looked up outside of the table is dropped."""
    indices = gradient.indices
    slopes = gradient.slopes.reshape(*indices.shape, -1)
    width = slopes.shape[2]
    rows = max(1, min(table, size // max(width, 1)))

    def read(number: Any) -> Any:
        row = number * rows + jnp.arange(rows)
        hit = (indices[..., None] == row[None, None]) & (row < table)[None, None]
        hit = hit.astype(slopes.dtype)
        values = jnp.einsum("ntr,ntd->nrd", hit, slopes, precision=EXACT)
        places = row[:, None] * width + jnp.arange(width)[None]
        return values.reshape(len(values), -1), places.reshape(-1).astype(jnp.uint32)

    return _Blocks(-(-table // rows), read)


def _padded(values: Array, size: int) -> Array:
    """Zeros at the end of the last axis."""
    missing = size - values.shape[-1]
    return jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def _block_size(width: int) -> int:
    cpu = target_platform() == "cpu"
    return max(64, (BLOCK_NUMBERS if cpu else DEVICE_BLOCK_NUMBERS) // width)
