"""Say in one sentence what is wrong with a batch, before anything is trained."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from unlearn_jax.types import Batch


def check(batch: Batch, *, task: str, classes: int, name: str) -> None:
    """Refuse a batch that could not be trained on, saying what to change.

    Reads every number once, on the host: call it where data enters, not per step.

    Args:
        batch: Concrete arrays, not traced ones.
        task: "classification" (int32 targets of shape (n,)) or "regression" (floating
            targets of shape (n, classes)).
        classes: Number of outputs k.
        name: What the sentence calls the batch, such as "digits train".

    Raises:
        ValueError: no example, lengths that differ, a wrong dtype or shape, NaN or
            infinity, a label out of range, a weight that is negative or not finite.
    """
    if task not in ("classification", "regression"):
        raise ValueError(
            f"{name}: got task {task!r}, expected 'classification' or 'regression': "
            "change the task"
        )
    inputs, targets, weights = (np.asarray(field) for field in batch)
    _check_shapes(inputs, targets, weights, name)
    _check_inputs(inputs, name)
    if task == "classification":
        _check_labels(targets, classes, name)
    else:
        _check_regression(targets, classes, name)
    _check_weights(weights, name)


def _check_shapes(inputs: Any, targets: Any, weights: Any, name: str) -> None:
    shapes = f"inputs {inputs.shape}, targets {targets.shape}, weights {weights.shape}"
    if inputs.ndim < 2 or targets.ndim < 1 or weights.ndim != 1:
        raise ValueError(
            f"{name}: got {shapes}, expected inputs (n, features...), targets (n, ...) "
            "and weights (n,): reshape, a single feature is a column of shape (n, 1)"
        )
    if not len(inputs) == len(targets) == len(weights):
        raise ValueError(
            f"{name}: got {shapes}, expected the same number of examples in all three: "
            "drop the examples that lack a partner"
        )
    if not len(inputs):
        raise ValueError(
            f"{name}: got no example at all ({shapes}), expected at least one: "
            "check what the examples were selected by"
        )


def _check_inputs(inputs: Any, name: str) -> None:
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(
            f"{name}: got inputs of dtype {inputs.dtype}, expected floating point: "
            "convert them, for instance images to float32 between 0 and 1"
        )
    _check_finite(inputs, "inputs", name)


def _check_finite(values: Any, field: str, name: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{name}: got {int((~finite).sum())} NaN or infinite values in the "
            f"{field}, the first at index {first}, expected finite numbers: fill in or "
            "drop these examples"
        )


def _check_labels(targets: Any, classes: int, name: str) -> None:
    if targets.dtype != np.int32 or targets.ndim != 1:
        raise ValueError(
            f"{name}: got targets of dtype {targets.dtype} and shape {targets.shape}, "
            "expected one int32 class index per example for classification: convert "
            "them with astype('int32'), one-hot rows with argmax first"
        )
    wrong = np.flatnonzero((targets < 0) | (targets >= classes))
    if wrong.size:
        raise ValueError(
            f"{name}: got {wrong.size} labels out of range, the first is "
            f"{int(targets[wrong[0]])} at example {int(wrong[0])}, expected 0 to "
            f"{classes - 1}: renumber the labels or raise the number of classes"
        )


def _check_regression(targets: Any, classes: int, name: str) -> None:
    floating = jnp.issubdtype(targets.dtype, jnp.floating)
    if not floating or targets.ndim != 2 or targets.shape[1] != classes:
        raise ValueError(
            f"{name}: got targets of dtype {targets.dtype} and shape {targets.shape}, "
            f"expected floating point of shape (n, {classes}) for regression: convert "
            "them, a single target is a column of shape (n, 1)"
        )
    _check_finite(targets, "targets", name)


def _check_weights(weights: Any, name: str) -> None:
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        raise ValueError(
            f"{name}: got weights of dtype {weights.dtype}, expected floating point: "
            "convert them with astype('float32')"
        )
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        raise ValueError(
            f"{name}: got {wrong.size} weights that are negative or not finite, the "
            f"first is {float(weights[wrong[0]])} at example {int(wrong[0])}, expected "
            "0 or more: a weight of 0 leaves an example out"
        )
    if not weights.any():
        raise ValueError(
            f"{name}: got no example at all, since every weight is 0, expected at "
            "least one positive weight: check what the examples were selected by"
        )
