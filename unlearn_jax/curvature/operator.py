"""A curvature matrix is a function: symmetric linear maps on parameter space.

Build operators inside the outermost ``jit``: their products close over parameters and
data, and arrays that cross ``jit`` in a closure are folded into the program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from unlearn_jax import tree
from unlearn_jax.types import Array, Params
from unlearn_kernels.target import target_platform
from unlearn_kernels.varying import vary


class LinearOperator(NamedTuple):
    """Description: a symmetric linear map from vectors shaped like params to the same.

    Attributes:
        matvec: The product, unchecked.
        like: Tree of ``jax.ShapeDtypeStruct``: what a vector must look like.
    """

    matvec: Callable[[Any], Any]
    like: PyTree[jax.ShapeDtypeStruct]

    def __call__(self, vector: Params) -> Params:
        """The product with one vector.

        Raises:
            ValueError: the vector has another structure, shapes or dtypes.
        """
        check_like(self.like, vector)
        return self.matvec(vector)


def linear_operator(
    matvec: Callable[[Any], Any], like: Params | PyTree[jax.ShapeDtypeStruct]
) -> LinearOperator:
    """An operator from a product and an example of what it acts on.

    What it acts on varies over the axes of a mesh that ``like`` varies over.
    """
    shapes = vary(jax.tree.map(_shape, like), like)
    return LinearOperator(lambda v: matvec(vary(v, shapes)), shapes)


def check_like(like: Any, vector: Any, what: str = "vector") -> None:
    """Refuse a tree that is not of the structure, shapes and dtypes of ``like``.

    Raises:
        ValueError: both structures, or the first leaf that differs, are named.
    """
    expected, given = jax.tree.structure(like), jax.tree.structure(vector)
    if expected != given:
        raise ValueError(
            f"the {what} has the structure {given}, expected {expected}; give a tree "
            f"like the parameters"
        )
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(like), jax.tree.leaves(vector), strict=True
    )
    for (path, want), got in pairs:
        got = _shape(got)
        if (want.shape, want.dtype) != (got.shape, got.dtype):
            raise ValueError(
                f"the {what} holds {got.dtype}{list(got.shape)} at "
                f"{jax.tree_util.keystr(path) or 'its only leaf'}, expected "
                f"{want.dtype}{list(want.shape)}; give a tree like the parameters"
            )


def block(operator: LinearOperator, vectors: Params) -> Params:
    """Products with several vectors at once, stacked along the first axis.

    Cost: the linear part once per vector; the linearisation is shared. On CPU the
        products follow one another, since XLA lays out stacked vectors poorly there
        (twice as slow); elsewhere they share larger matrix products.
    """
    if target_platform() == "cpu":
        return jax.lax.map(operator, vectors)
    return jax.vmap(operator)(vectors)


def damped(operator: LinearOperator, damping: Any) -> LinearOperator:
    """``A + damping · I``."""
    return operator._replace(matvec=lambda v: tree.axpy(damping, v, operator.matvec(v)))


def add(a: LinearOperator, b: LinearOperator) -> LinearOperator:
    """``A + B``.

    Raises:
        ValueError: they act on different spaces.
    """
    check_like(a.like, b.like, "second operator")
    return a._replace(matvec=lambda v: tree.add(a.matvec(v), b.matvec(v)))


def scale(factor: Any, a: LinearOperator) -> LinearOperator:
    """``factor · A``."""
    return a._replace(matvec=lambda v: tree.scale(factor, a.matvec(v)))


def diagonal(entries: Params) -> LinearOperator:
    """The diagonal matrix with these entries."""
    return linear_operator(lambda v: jax.tree.map(jnp.multiply, entries, v), entries)


def dense(operator: LinearOperator) -> Float[Array, "p p"]:
    """The matrix, flattened in the order of the leaves; for tests and tiny problems.

    Cost: p products and p² numbers.
    """
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), operator.like)
    flat, unflatten = jax.flatten_util.ravel_pytree(zeros)

    def column(basis: Array) -> Array:
        return jax.flatten_util.ravel_pytree(operator.matvec(unflatten(basis)))[0]

    return jax.lax.map(column, jnp.eye(flat.size, dtype=flat.dtype)).T


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))
