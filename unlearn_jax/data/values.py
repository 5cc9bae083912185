"""Values of a batch that no training survives: told with their row beforehand."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data.token_values import check_tokens
from unlearn_jax.types import Batch

_BLOCK_BYTES = 2**20


def check_values(
    batch: Batch,
    *,
    targets: str,
    outputs: tuple[int, ...] | None,
    name: str,
    negative: bool = False,
    empty: bool = False,
) -> None:
    """Refuse values that a model cannot learn from, in rows whose weight is not 0.

    Reads every number once, where it lies, and copies none: host arrays in blocks that
    stay in the cache, those of an accelerator there.

    Args:
        batch: Concrete arrays; inputs and targets may be pytrees.
        targets: What the loss takes, see ``unlearn_jax.train.loss.TARGETS``.
        outputs: Shape of the model's outputs without the axis of examples; None where
            it is not known.
        name: What the sentence calls the batch, such as "retain set".
        negative: Weights may be negative.
        empty: Every weight may be zero.

    Raises:
        ValueError: lengths that differ, no example, weights that are no weights, NaN or
            infinity with its row, targets of another kind, labels out of range; of
            sequences a token to read that the model has none for, or an example of
            which none is asked for.
    """
    _check_lengths(batch, name)
    weights = np.asarray(batch.weights)
    _check_weights(weights, name, negative=negative, empty=empty)
    there = weights != 0
    for field, tree in (("inputs", batch.inputs), ("targets", batch.targets)):
        infinite = field == "targets" and targets == "log_probabilities"
        if field == "targets" and targets == "anything":
            continue
        for leaf in jax.tree.leaves(tree):
            _check_rows(leaf, there, f"{name}: got", field, infinite=infinite)
    if outputs is not None and hasattr(batch.targets, "dtype"):
        _check_targets(batch.targets, there, targets, outputs, name)
        if targets == "tokens":
            check_tokens(batch, there, outputs[-1], name)


def _check_lengths(batch: Batch, name: str) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    shapes = ", ".join(
        f"{jax.tree_util.keystr(path).lstrip('.')} {np.shape(leaf)}"
        for path, leaf in leaves
    )
    lengths = {np.shape(leaf)[0] if np.ndim(leaf) else None for _, leaf in leaves}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            f"{name}: got {shapes}, expected one leading axis of examples, as long in "
            "all of them: drop the examples that lack a partner"
        )
    if lengths == {0}:
        raise ValueError(
            f"{name}: got no example at all ({shapes}), expected at least one: check "
            "what the examples were selected by"
        )


def _check_weights(
    weights: np.ndarray, name: str, *, negative: bool, empty: bool
) -> None:
    if weights.ndim != 1:
        raise ValueError(
            f"{name}: got weights of shape {weights.shape}, expected one for each "
            "example: reshape them to (n,)"
        )
    wrong = np.flatnonzero(~np.isfinite(weights) | (not negative) & (weights < 0))
    if wrong.size:
        raise ValueError(
            f"{name}: got {wrong.size} weights that are "
            f"{'' if negative else 'negative or '}not finite, the first is "
            f"{float(weights[wrong[0]])} at example {int(wrong[0])}: a weight of 0 "
            "leaves an example out"
        )
    if not empty and not weights.any():
        raise ValueError(
            f"{name}: got no example at all, since every weight is 0, expected at "
            "least one positive weight: check what the examples were selected by"
        )


def _check_rows(
    leaf: Any, there: np.ndarray, got: str, field: str, *, infinite: bool
) -> None:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return
    broken = broken_rows(leaf, infinite=infinite) & there
    if broken.any():
        first = int(np.argmax(broken))
        raise ValueError(
            f"{got} NaN or infinite {field} in {int(broken.sum())} rows, the first is "
            f"row {first}, expected finite numbers: fill them in, drop these rows, or "
            "give them weight 0"
        )


def broken_rows(leaf: Any, *, infinite: bool = False) -> np.ndarray:
    """Which rows hold NaN or infinity (only NaN and +inf where ``infinite``).

    Args:
        leaf: (n, ...) floating-point array of NumPy or JAX.
        infinite: -inf is a value.

    Returns:
        (n,) booleans on the host.
    """
    if isinstance(leaf, jax.Array) and not _on_host(leaf):
        with jax.ensure_compile_time_eval():
            return np.asarray(_broken_on_device(leaf, infinite=infinite))
    values = np.asarray(leaf)
    values = values.reshape(len(values), -1)
    found = np.zeros(len(values), bool)
    step = max(1, _BLOCK_BYTES // max(values[:1].nbytes, 1))
    for start in range(0, len(values), step):
        block = values[start : start + step]
        good = np.isfinite(block)
        if not good.all():
            if infinite:
                good |= np.isneginf(block)
            found[start : start + step] = ~good.all(axis=1)
    return found


def _on_host(leaf: jax.Array) -> bool:
    devices = leaf.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


@functools.partial(jax.jit, static_argnames="infinite")
def _broken_on_device(leaf: jax.Array, *, infinite: bool) -> jax.Array:
    good = jnp.isfinite(leaf)
    if infinite:
        good |= jnp.isneginf(leaf)
    return ~jnp.all(good.reshape(leaf.shape[0], -1), axis=1)


def _check_targets(
    targets: Any, there: np.ndarray, kind: str, outputs: tuple[int, ...], name: str
) -> None:
    shape, whole = targets.shape, jnp.issubdtype(targets.dtype, jnp.integer)
    got = f"{name}: got targets of dtype {targets.dtype} and shape {shape}"
    if kind == "classes" and (not whole or len(shape) != len(outputs)):
        raise ValueError(
            f"{got}, expected one class index for each example: convert labels with "
            "astype('int32'), one-hot rows with argmax first"
        )
    if kind == "tokens" and (not whole or shape[1:] != outputs[:-1]):
        raise ValueError(
            f"{got}, expected a token for each position, {outputs[:-1]} of an example: "
            "convert or cut them"
        )
    if kind in ("numbers", "log_probabilities") and shape[1:] != outputs:
        raise ValueError(
            f"{got}, expected the model's outputs, {outputs} of an example: reshape "
            "them, a single target is a column of shape (n, 1)"
        )
    if kind in ("classes", "tokens"):
        _check_labels(np.asarray(targets), there, kind, outputs[-1], name)


def _check_labels(
    labels: np.ndarray, there: np.ndarray, kind: str, classes: int, name: str
) -> None:
    wrong = labels >= classes
    if kind == "classes":
        wrong |= labels < 0
    wrong &= there.reshape(-1, *(1,) * (labels.ndim - 1))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f"{place[0]}" if len(place) == 1 else f"{place[0]}, token {place[1]}"
        raise ValueError(
            f"{name}: got {int(wrong.sum())} labels out of range, the first is "
            f"{int(labels[place])} at example {where}, expected 0 to {classes - 1}: "
            "renumber the labels or raise the number of classes"
        )
