"""Rows by their numbers: put in, taken out, and refused where they do not fit."""

from typing import Any

import jax
import numpy as np

from unlearn_jax.solvers.refusal import RefusedError
from unlearn_jax.train.entrance import check_learnable
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch


def check_numbers(numbers: Any, capacity: int) -> np.ndarray:
    """Row numbers of a request.

    Raises:
        ValueError: no list of different whole numbers from 0 to capacity - 1.
    """
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(
            f"got row numbers {numbers.dtype} of shape {numbers.shape}, expected a "
            "list of integers: turn a mask into numbers with numpy.flatnonzero"
        )
    if not numbers.size:
        raise ValueError("got no row number, expected at least one: name the rows")
    wrong = numbers[(numbers < 0) | (numbers >= capacity)]
    if wrong.size:
        raise ValueError(
            f"got row number {int(wrong[0])}, expected 0 to {capacity - 1}: this model "
            "was laid out for so many rows"
        )
    unique, counts = np.unique(numbers, return_counts=True)
    if unique.size < numbers.size:
        raise ValueError(
            f"got row number {int(unique[np.argmax(counts > 1)])} more than once: name "
            "each row once"
        )
    return numbers


def check_rows(
    learner: Learner, like: Batch, count: int, inputs: Any, targets: Any
) -> None:
    """Refuse rows that could not be trained on, or that are unlike the others.

    Raises:
        ValueError: other shapes or dtypes than ``like``, another number of rows, NaN,
            labels out of range.
    """
    for name, given, field in (
        ("inputs", inputs, like.inputs),
        ("targets", targets, like.targets),
    ):
        found, expected = np.asarray(given), np.asarray(field)
        if found.dtype != expected.dtype or found.shape[1:] != expected.shape[1:]:
            raise ValueError(
                f"got {name} {found.dtype}{list(found.shape)}, expected "
                f"{expected.dtype} of shape {('n', *expected.shape[1:])} as the rows "
                "that the model was laid out for"
            )
        if len(found) != count:
            raise ValueError(
                f"got {count} row numbers and {len(found)} {name}, expected one for "
                "each row: name as many rows as there are"
            )
    ones = np.ones(count, np.asarray(like.weights).dtype)
    check_learnable(learner, Batch(inputs, targets, ones), name="rows to learn")


def present(rows: Batch) -> np.ndarray:
    """Whether each row is there."""
    return np.asarray(rows.weights) > 0


def with_rows(rows: Batch, numbers: Any, inputs: Any, targets: Any) -> Batch:
    """The rows and these.

    Raises:
        RefusedError: one of the numbers is taken.
    """
    taken = np.asarray(numbers)[present(rows)[numbers]]
    if taken.size:
        raise RefusedError(
            f"row {int(taken[0])} is there already ({taken.size} of {len(numbers)} "
            "are): forget it first, or give the row a number of its own"
        )
    values = Batch(inputs, targets, np.ones(len(numbers), rows.weights.dtype))
    return jax.tree.map(lambda old, new: _placed(old, numbers, new), rows, values)


def without_rows(rows: Batch, numbers: Any) -> Batch:
    """The rows without these; zeros stand in their places.

    Raises:
        RefusedError: one of the numbers is not there.
    """
    missing = np.asarray(numbers)[~present(rows)[numbers]]
    if missing.size:
        raise RefusedError(
            f"row {int(missing[0])} is not there ({missing.size} of {len(numbers)} are "
            "not): it was never learned, or forgotten already"
        )
    return jax.tree.map(lambda old: _placed(old, numbers, 0), rows)


def _placed(old: Any, numbers: Any, new: Any) -> np.ndarray:
    field = np.array(old)
    field[numbers] = new
    return field
