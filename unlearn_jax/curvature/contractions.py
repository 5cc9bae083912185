"""What per-example gradients are wanted for, computed from their factors.

Every function takes ``Gradients`` as :mod:`unlearn_jax.curvature.per_example` keeps
them. Positions of a sequence or an image are summed within an example first, as the
gradient of an example is one vector.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.curvature.moments import row_squares, wide
from unlearn_jax.curvature.per_example import (
    CACHE_BYTES,
    DEVICE_BYTES,
    Gradient,
    Gradients,
    Outer,
    Rows,
    Whole,
    from_form,
    to_form,
)
from unlearn_jax.curvature.tapping import Tape
from unlearn_jax.data.accumulate import collect
from unlearn_jax.types import Array, Params, PerExample, Weights
from unlearn_kernels.fisher_diagonal import square_sum as kernel_square_sum
from unlearn_kernels.precision import contracts
from unlearn_kernels.squared_norm import squared_norm as kernel_squared_norm
from unlearn_kernels.target import target_platform


@contracts
def square_sum(taped: Tape, gradients: Gradients, weights: Weights) -> Params:
    """Σₙ wₙ |gₙ|², elementwise: real, in at least float32, shaped like the parameters.

    Cost: as much as the weight part of one gradient of the batch.
    """
    gradients = widened(gradients)

    def one(leaf: int, gradient: Gradient) -> Array:
        if isinstance(gradient, Outer):
            scale = jnp.asarray(weights, gradient.slopes.dtype)
            return from_form(taped, leaf, kernel_square_sum(*gradient, scale))
        if isinstance(gradient, Rows):
            rows = _table(taped, leaf, gradient.slopes.dtype).shape
            squares = row_squares(gradient, jnp.asarray(weights), rows[0])
            return from_form(taped, leaf, squares.reshape(rows))
        squares = _squared(gradient.values)
        return jnp.tensordot(weights.astype(squares.dtype), squares, 1)

    return _tree(taped, [one(*pair) for pair in enumerate(gradients)])


def zeros_for_squares(params: Params) -> Params:
    """Zeros as ``square_sum`` adds them up."""

    def zero(leaf: Array) -> Array:
        return jnp.zeros(leaf.shape, jnp.finfo(wide(leaf)).dtype)

    return jax.tree.map(zero, params)


@contracts
def weighted_sum(taped: Tape, gradients: Gradients, weights: Weights) -> Params:
    """Σₙ wₙ gₙ, like the parameters; half precision is summed in float32."""
    narrow = [gradient[-1].dtype for gradient in gradients]
    gradients = widened(gradients)

    def one(leaf: int, gradient: Gradient) -> Array:
        if isinstance(gradient, Outer):
            scale = jnp.asarray(weights, gradient.slopes.dtype)
            total = jnp.einsum("n,ngti,ngto->gio", scale, *gradient)
            return from_form(taped, leaf, total)
        if isinstance(gradient, Rows):
            return _scatter_rows(taped, leaf, gradient, weights)
        return jnp.tensordot(
            weights.astype(gradient.values.dtype), gradient.values, axes=1
        )

    totals = [one(*pair) for pair in enumerate(gradients)]
    kinds = zip(totals, narrow, strict=True)
    return _tree(taped, [total.astype(kind) for total, kind in kinds])


@contracts
def dense(taped: Tape, gradients: Gradients) -> Params:
    """The gradients themselves, (n, *shape) in each leaf.

    Cost: n × p numbers of memory; for small blocks and tests.
    """
    return _tree(taped, [formed(taped, *pair) for pair in enumerate(gradients)])


@contracts
def squared_norms(gradients: Gradients) -> PerExample:
    """‖gₙ‖² for each example, in at least float32, without forming gradients.

    Cost: for t positions, 2 t² (i + o) or 2 t i o operations a layer and example,
        whichever is less.
    """

    def one(gradient: Gradient) -> Array:
        if isinstance(gradient, Rows):
            same = _same_rows(gradient.indices, gradient.indices)
            slopes = _flat(gradient.slopes, 2)
            inner = jnp.einsum("ntd,nsd->nts", slopes, slopes)
            return jnp.sum(jnp.where(same, inner, 0), axis=(1, 2))
        if isinstance(gradient, Whole):
            return jnp.sum(_squared(_flat(gradient.values, 1)), axis=1)
        return kernel_squared_norm(*gradient)

    return sum(map(one, widened(gradients)), start=jnp.zeros((), jnp.float32))


@contracts
def gram(first: Gradients, second: Gradients) -> Float[Array, "n m"]:
    """Re ⟨gₙ, gₘ⟩ for all pairs of two sets of examples, in at least float32.

    Cost: without shared weights 2 n m (i + o) operations a layer; with t positions
        2 n m t² (i + o), or 2 n m i o with the gradients of both sets formed in blocks,
        whichever is less. Of one set with itself: :mod:`curvature.gradient_gram`.
    """

    def one(a: Gradient, b: Gradient) -> Array:
        if isinstance(a, Outer) and isinstance(b, Outer):
            return _outer_gram(a, b)
        if isinstance(a, Rows) and isinstance(b, Rows):
            return _rows_gram(a, b)
        if isinstance(a, Whole) and isinstance(b, Whole):
            return jnp.real(_flat(a.values, 1) @ _flat(b.values, 1).conj().T)
        raise TypeError("the two sets of gradients come from different models")

    return sum(
        (one(a, b) for a, b in zip(widened(first), widened(second), strict=True)),
        start=jnp.zeros((), jnp.float32),
    )


@contracts
def along(taped: Tape, gradients: Gradients, vector: Params) -> PerExample:
    """Re Σ gₙ v for each example: derivatives along a direction, at least in float32.

    JAX's gradient g of a real function by complex numbers has Re Σ g dz as its change.

    Cost: one product with each layer's part of ``vector``.
    """

    def one(leaf: int, gradient: Gradient, direction: Array) -> Array:
        if isinstance(gradient, Outer):
            inputs, slopes = gradient
            form = to_form(taped, leaf, direction)
            # Examples as rows: with those of ``form``, of three or ten columns, as rows
            # XLA finds no tiles for GPUs.
            return jnp.einsum("ngto,gio,ngti->n", slopes, form, inputs)
        if isinstance(gradient, Rows):
            rows = to_form(taped, leaf, direction)
            picked = rows.at[gradient.indices].get(mode="fill", fill_value=0)
            return jnp.sum(_flat(picked * gradient.slopes, 1), axis=1)
        return jnp.real(_flat(gradient.values, 1) @ direction.reshape(-1))

    gradients = widened(gradients)
    leaves = [leaf.astype(wide(leaf)) for leaf in jax.tree.leaves(vector)]
    parts = [
        one(leaf, gradient, direction)
        for leaf, (gradient, direction) in enumerate(
            zip(gradients, leaves, strict=True)
        )
    ]
    return sum(parts, start=jnp.zeros((), jnp.float32))


def _outer_gram(a: Outer, b: Outer) -> Array:
    if a.inputs.shape[2] == b.inputs.shape[2] == 1:
        left = jnp.einsum("ngi,mgi->gnm", a.inputs[:, :, 0], b.inputs[:, :, 0])
        right = jnp.einsum("ngo,mgo->gnm", a.slopes[:, :, 0], b.slopes[:, :, 0])
        return jnp.sum(left * right, axis=0)
    if not pairs_pay(a, b, a.inputs.shape[0], b.inputs.shape[0]):
        return _formed_gram(a, b)

    def row(example: Outer) -> Array:
        left = jnp.einsum("gti,mgsi->mgts", example.inputs, b.inputs)
        right = jnp.einsum("gto,mgso->mgts", example.slopes, b.slopes)
        return jnp.einsum("mgts,mgts->m", left, right)

    return jax.lax.map(row, a)


def pairs_pay(a: Outer, b: Outer, n: int, m: int) -> bool:
    """Whether pairs of positions cost less than forming gradients, set by set.

    Args:
        a: One layer's factors of some examples of the first set.
        b: Of the second.
        n: Examples in the first set.
        m: In the second.
    """
    _, _, t, i = a.inputs.shape
    o = b.slopes.shape[3]
    return n * m * t * t * (i + o) < (n * m + (n + m) * t) * i * o


def _formed_gram(a: Outer, b: Outer) -> Array:
    """Blocks of both sets at a time, so that no more than two blocks are formed."""
    _, g, _, i = a.inputs.shape
    cpu = target_platform() == "cpu"
    one = g * i * a.slopes.shape[3] * a.inputs.dtype.itemsize
    size = max(8, (4 * CACHE_BYTES if cpu else DEVICE_BYTES) // one)

    def with_second(second: Outer, first: Array) -> Array:
        return formed_rows(second) @ first.T

    def with_first(first: Outer, b: Outer) -> Array:
        return collect(with_second, b, formed_rows(first), batch_size=size).T

    return collect(with_first, a, b, batch_size=size)


def formed_rows(gradient: Outer) -> Float[Array, "n p"]:
    """One layer's gradients as rows whose numbers lie as the factors have them.

    That order is of no matter to inner products, and another one costs a copy.
    """
    return _flat(_formed(gradient), 1)


def _formed(gradient: Outer) -> Float[Array, "n g i o"]:
    """The gradients of one layer; on CPU one example after the other.

    There, XLA computes many small products at once with a poor kernel.
    """
    if gradient.inputs.shape[2] == 1:
        return _at_once(gradient)
    return jax.lax.platform_dependent(gradient, cpu=_in_turn, default=_at_once)


def _at_once(gradient: Outer) -> Array:
    return jnp.einsum("ngti,ngto->ngio", *gradient)


def _in_turn(gradient: Outer) -> Array:
    def one(example: Outer) -> Array:
        groups = zip(*example, strict=True)
        return jnp.stack([inputs.T @ slopes for inputs, slopes in groups])

    return jax.lax.map(one, gradient)


def _rows_gram(a: Rows, b: Rows) -> Array:
    left, right = _flat(a.slopes, 2), _flat(b.slopes, 2)

    def row(example: tuple[Array, Array]) -> Array:
        indices, slopes = example
        same = indices[None, :, None] == b.indices[:, None, :]
        inner = jnp.einsum("td,msd->mts", slopes, right)
        return jnp.sum(jnp.where(same, inner, 0), axis=(1, 2))

    return jax.lax.map(row, (a.indices, left))


def _same_rows(a: Array, b: Array) -> Array:
    return a[:, :, None] == b[:, None, :]


def _scatter_rows(taped: Tape, leaf: int, gradient: Rows, weights: Weights) -> Array:
    """Σₙ wₙ gₙ of a table, from the slopes in the rows that were looked up."""
    indices, slopes = gradient
    flat = _flat(slopes, 2)
    table = _table(taped, leaf, flat.dtype)
    zero = jnp.zeros((table.shape[0], flat.shape[2]), flat.dtype)
    scaled = weights.astype(flat.dtype)[:, None, None] * flat
    filled = zero.at[indices].add(scaled, mode="drop")
    return from_form(taped, leaf, filled.reshape(table.shape))


def _table(taped: Tape, leaf: int, dtype: Any) -> jax.ShapeDtypeStruct:
    """A looked-up parameter as its rows lie."""
    shape = taped.program.shapes[taped.program.inputs[leaf]].shape
    return jax.eval_shape(lambda: to_form(taped, leaf, jnp.zeros(shape, dtype)))


def formed(taped: Tape, leaf: int, gradient: Gradient) -> Array:
    """One parameter's gradients, formed: (n, *shape)."""
    if isinstance(gradient, Whole):
        return gradient.values
    if isinstance(gradient, Outer):
        formed = _formed(gradient)
        return jax.vmap(lambda value: from_form(taped, leaf, value))(formed)
    ones = jnp.ones((1,), gradient.slopes.dtype)

    def single(example: Rows) -> Array:
        alone = Rows(*(part[None] for part in example))
        return _scatter_rows(taped, leaf, alone, ones)

    return jax.vmap(single)(gradient)


def widened(gradients: Gradients) -> Gradients:
    """Half precision in float32: sums over examples and positions lose it."""

    def one(leaf: Array) -> Array:
        inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return leaf.astype(wide(leaf)) if inexact else leaf

    return jax.tree.map(one, gradients)


def _squared(values: Array) -> Array:
    """|values|², of real numbers without a detour."""
    complex_ = jnp.issubdtype(values.dtype, jnp.complexfloating)
    return (
        jnp.square(values.real) + jnp.square(values.imag)
        if complex_
        else jnp.square(values)
    )


def _flat(values: Array, axes: int) -> Array:
    """All axes from ``axes`` on joined."""
    return values.reshape(*values.shape[:axes], -1)


def _tree(taped: Tape, leaves: list[Array]) -> Params:
    return jax.tree.unflatten(taped.structure, leaves)
