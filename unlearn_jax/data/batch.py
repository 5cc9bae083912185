"""Data sets and batches: build, take, pad, join; ``check`` before training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data.checks import check as check
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Batch, PRNGKey


class Splits(NamedTuple):
    """Value: the examples to learn from and the examples to judge by."""

    train: Batch
    test: Batch


class Dataset(NamedTuple):
    """Description: one data set in memory and what a table must say about it.

    Arrays are numpy, so nothing is copied to a device before it is used.

    Attributes:
        name: Key in ``DATASETS``.
        title: The data's true name, as tables print it.
        task: "classification" or "regression".
        classes: Number of outputs k: classes, or columns of a regression target.
        splits: Train and test examples, every weight one.
        subclasses: Finer int32 label of each training example, or None.
        test_subclasses: Finer int32 label of each test example, or None.
    """

    name: str
    title: str
    task: str
    classes: int
    splits: Splits
    subclasses: np.ndarray | None = None
    test_subclasses: np.ndarray | None = None


def from_arrays(inputs: Any, targets: Any, weights: Any = None) -> Batch:
    """A batch from arrays or nested lists; numpy stays numpy, jax stays jax.

    Args:
        inputs: Shape (n, ...), or a dict or tuple of such arrays.
        targets: Shape (n,) or (n, k), or a dict or tuple of such arrays; integers
            become int32, floats keep their dtype.
        weights: Shape (n,), non-negative; None is one for each example, in the dtype
            of the inputs (float32 where they are not floating, or half precision,
            whose sums overflow).

    Returns:
        Batch. Nothing is checked here: see ``check``.
    """
    inputs, targets = _arrays(inputs), jax.tree.map(_narrow, _arrays(targets))
    if weights is None:
        first, *_ = jax.tree.leaves(inputs)
        floating = jnp.issubdtype(first.dtype, jnp.floating)
        dtype = jnp.promote_types(first.dtype, np.float32) if floating else np.float32
        module = np if isinstance(first, np.ndarray) else jnp
        weights = module.ones(len(first), dtype)
    return Batch(inputs, targets, _array(weights))


def take(batch: Batch, indices: Any) -> Batch:
    """The examples at ``indices``, in that order, with their weights.

    Args:
        batch: n examples.
        indices: Integers in [0, n), shape (s,); known numbers, not traced ones.

    Returns:
        Batch of s examples.

    Raises:
        ValueError: not a list of integers, or one is out of range.
    """
    indices = np.asarray(indices)
    if indices.size == 0:
        indices = indices.astype(np.int64)
    count = leading_axis(batch)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f"take got {indices.dtype} of shape {indices.shape}, expected a list of "
            "integers: turn a mask into indices with numpy.flatnonzero"
        )
    if indices.size and not 0 <= indices.min() <= indices.max() < count:
        wrong = int(indices[(indices < 0) | (indices >= count)][0])
        raise ValueError(
            f"take got index {wrong}, expected indices from 0 to {count - 1}: "
            "draw them for this batch"
        )
    return jax.tree.map(lambda leaf: leaf[indices], batch)


def sample(key: PRNGKey, batch: Batch, size: int, wanted: Any = None) -> Batch:
    """Examples drawn without replacement among those of positive weight; traceable.

    Args:
        key: Draws them.
        batch: n examples.
        size: Length of the result, at most n: a number, not a traced value.
        wanted: How many of them keep their weight (may be traced); None keeps all.

    Returns:
        Batch of ``size`` examples. Where fewer than ``size`` have weight, or fewer are
        wanted, those at the end have weight zero.
    """
    present = batch.weights > 0
    drawn = jax.random.uniform(key, present.shape, jnp.float32)
    chosen = jnp.argsort(jnp.where(present, drawn, 2.0))[:size]
    part = jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], batch)
    if wanted is None:
        return part
    kept = jnp.where(jnp.arange(size) < wanted, part.weights, 0)
    return part._replace(weights=kept)


def pad(batch: Batch, size: int) -> Batch:
    """The batch followed by zeros with weight zero, ``size`` examples in all.

    Raises:
        ValueError: the batch holds more than ``size`` examples already.
    """
    count = leading_axis(batch)
    if size < count:
        raise ValueError(
            f"pad got size {size} for {count} examples, expected at least {count}: "
            "raise the size, for instance to bucket(count)"
        )

    def grow(field: Any) -> Any:
        module = np if isinstance(field, np.ndarray) else jnp
        return module.pad(field, [(0, size - count)] + [(0, 0)] * (field.ndim - 1))

    return jax.tree.map(grow, batch)


def bucket(size: int) -> int:
    """The size that a request of ``size`` examples is padded to.

    Few sizes mean few compilations: the next power of two up to 64, then the next of
    four to an octave, which adds less than a quarter.

    Raises:
        ValueError: ``size`` is negative.
    """
    if size < 0:
        raise ValueError(f"bucket got size {size}, expected a count of examples >= 0")
    octave = max(size - 1, 0).bit_length()
    step = 1 << (octave if size <= 64 else octave - 3)
    return max(1, -(-size // step)) * step


def concatenate(a: Batch, b: Batch) -> Batch:
    """The examples of ``a``, then those of ``b``.

    Raises:
        ValueError: one example of ``a`` is not shaped like one of ``b``.
    """
    for field, x, y in zip(Batch._fields, a, b, strict=True):
        one, other = (jax.tree.map(_row_shape, part) for part in (x, y))
        if one != other:
            shapes = [[leaf.shape for leaf in jax.tree.leaves(part)] for part in (x, y)]
            raise ValueError(
                f"concatenate got {field} of shapes {shapes[0]} and {shapes[1]}, "
                "expected the same structure, and the same shapes after the first "
                "axis: reshape one of the batches"
            )

    def join(x: Any, y: Any) -> Any:
        both = isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
        return (np if both else jnp).concatenate([x, y])

    return jax.tree.map(join, a, b)


def _array(values: Any) -> Any:
    """Arrays (numpy, jax, traced) as they are; anything else as numpy."""
    return values if hasattr(values, "dtype") else np.asarray(values)


def _arrays(values: Any) -> Any:
    """The same for each part of a dict or tuple; a list is one array."""
    parts = isinstance(values, dict | tuple)
    return jax.tree.map(_array, values, is_leaf=_is_list) if parts else _array(values)


def _is_list(values: Any) -> bool:
    return isinstance(values, list)


def _row_shape(leaf: Any) -> jax.ShapeDtypeStruct:
    # Dtypes may differ: they are promoted.
    return jax.ShapeDtypeStruct(leaf.shape[1:], np.float32)


def _narrow(targets: Any) -> Any:
    integers = jnp.issubdtype(targets.dtype, jnp.integer)
    return targets.astype(np.int32) if integers else targets
