"""Vector algebra on pytrees, and selection of leaves by their path."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from unlearn_jax.types import Array, Params, Path, PRNGKey, Scalar
from unlearn_kernels.precision import EXACT


def dot(a: Params, b: Params) -> Scalar:
    """Real inner product Re Σ conj(a) b of two trees of the same structure.

    Summed in the widest dtype of the leaves, at least float32. A complex entry counts
    as its real and imaginary part: what a real objective is differentiated by. For
    Hermitian and for real symmetric operators it is a product as good as ⟨a, b⟩.
    """
    dtypes = [leaf.dtype for leaf in (*jax.tree.leaves(a), *jax.tree.leaves(b))]
    real = jnp.finfo(np.result_type(np.float32, *dtypes)).dtype

    def product(x: Array, y: Array) -> Array:
        wide = np.result_type(real, x.dtype, y.dtype)
        inner = jnp.vdot(x, y, precision=EXACT, preferred_element_type=wide)
        return jnp.real(inner)

    products = jax.tree.map(product, a, b)
    return jax.tree.reduce(jnp.add, products, jnp.zeros((), real))


def norm(a: Params) -> Scalar:
    """Euclidean norm over all leaves."""
    return jnp.sqrt(dot(a, a))


def add(a: Params, b: Params) -> Params:
    """Leafwise a + b."""
    return jax.tree.map(jnp.add, a, b)


def subtract(a: Params, b: Params) -> Params:
    """Leafwise a - b."""
    return jax.tree.map(jnp.subtract, a, b)


def scale(factor: Any, a: Params) -> Params:
    """Multiply every leaf by a scalar; leaves keep their dtype."""
    return jax.tree.map(lambda x: (factor * x).astype(x.dtype), a)


def axpy(factor: Any, x: Params, y: Params) -> Params:
    """Leafwise ``factor * x + y``; leaves keep the dtype of ``y``."""
    return jax.tree.map(lambda a, b: (factor * a + b).astype(b.dtype), x, y)


def zeros_like(a: Params) -> Params:
    """A tree of zeros of the same structure, shapes and dtypes."""
    return jax.tree.map(jnp.zeros_like, a)


def where(condition: Any, a: Params, b: Params) -> Params:
    """Leafwise choice; ``condition`` is a scalar or a tree of masks like ``a``."""
    if jax.tree.structure(condition) == jax.tree.structure(a):
        return jax.tree.map(jnp.where, condition, a, b)
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def random_like(key: PRNGKey, a: Params, sampler: Callable[..., Any]) -> Params:
    """Independent draws of ``sampler(key, shape, dtype)`` in the shape of ``a``."""
    leaves, structure = jax.tree.flatten(a)
    keys = jax.random.split(key, max(len(leaves), 1))
    drawn = [
        sampler(k, leaf.shape, leaf.dtype)
        for k, leaf in zip(keys, leaves, strict=False)
    ]
    return jax.tree.unflatten(structure, drawn)


def size(a: Any) -> int:
    """Number of scalars in all leaves."""
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(a))


def path_names(path: Any) -> Path:
    """A JAX key path as plain names and indices: ("blocks", 3, "kernel")."""
    return tuple(
        getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))) for k in path
    )


def select(a: Params, selected: Callable[[Path], bool]) -> PyTree[bool]:
    """A tree of booleans like ``a``: True on the leaves whose path is selected."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: bool(selected(path_names(path))), a
    )


def all_finite(a: Any) -> Any:
    """True when no floating-point leaf holds NaN or infinity."""
    checks = [
        jnp.all(jnp.isfinite(leaf))
        for leaf in jax.tree.leaves(a)
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)
    ]
    return jnp.all(jnp.stack(checks)) if checks else jnp.asarray(True)


def leading_axis(a: Any) -> int:
    """Length of the first axis, the same in every leaf.

    Raises:
        ValueError: the leaves disagree, or there is none.
    """
    shapes = {np.shape(leaf) for leaf in jax.tree.leaves(a)}
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            f"expected leaves with one common first axis, got shapes {sorted(shapes)}"
        )
    return lengths.pop()[0]


def stack(trees: list[Any]) -> Any:
    """Stack trees of one structure along a new first axis (the member axis)."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def member(stacked: Any, index: int) -> Any:
    """The tree at ``index`` of the first axis."""
    return jax.tree.map(lambda leaf: leaf[index], stacked)
