"""Other answers to the same questions: refusals, templates, wrong classes, any tokens.

The one form in which a request carries preferred answers: a *bank* of token sequences,
``((12, 5, 7, 2), (9, 9, 2), ...)``, each an answer from its first to its closing token.
A question is what stands before the first supervised position of an example; the answer
that is drawn for it takes the place of the true one, cut off where the row ends.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data.tokens import IGNORED
from unlearn_jax.types import Array, PRNGKey

Bank: TypeAlias = tuple[tuple[int, ...], ...]
"""Answers as token numbers; empty for none."""


def check_bank(bank: Sequence[Sequence[int]], *, name: str = "answers") -> Bank:
    """The bank as tuples.

    Raises:
        ValueError: an answer without a token, or a token that is no whole number of at
            least 0.
    """
    for answer in bank:
        whole = all(isinstance(token, int | np.integer) for token in answer)
        if not len(answer) or not whole or min(answer) < 0:
            raise ValueError(
                f"{name} has the answer {tuple(answer)!r}, expected token numbers from "
                "0 up, at least one: write ((12, 5, 2), (9, 2))"
            )
    return tuple(tuple(int(token) for token in answer) for answer in bank)


def other_answers(
    key: PRNGKey, inputs: Any, targets: Any, labels: int, bank: Bank = ()
) -> tuple[Any, Any]:
    """One other answer for each example; traceable.

    Args:
        key: Draws them.
        inputs: Of the examples; tokens (n, t) where targets are tokens.
        targets: Classes (n,) or tokens (n, t).
        labels: k, classes or tokens that there are.
        bank: Answers to draw from, all alike. Empty: for classes one of the other
            classes, for tokens any token at every supervised position.

    Returns:
        (inputs, targets) of the same shapes: a model that reads them is asked for the
        other answer, and reads it up to where it is asked.

    Raises:
        ValueError: a bank for classes, a token of it that is out of range, or a single
            class.
    """
    targets = jnp.asarray(targets)
    if targets.ndim == 1:
        if bank:
            raise ValueError(
                "got answers as tokens for examples that have one class each: leave "
                "them out, another class is drawn"
            )
        return inputs, wrong_labels(key, targets, labels)
    if not bank:
        kept = targets >= 0
        drawn = jax.random.randint(key, targets.shape, 0, labels, targets.dtype)
        targets = jnp.where(kept, drawn, targets)
        before = jnp.roll(targets, 1, axis=1).at[:, 0].set(IGNORED)
        return jnp.where(before >= 0, before, inputs).astype(inputs.dtype), targets
    highest = max(max(answer) for answer in bank)
    if highest >= labels:
        raise ValueError(
            f"an answer holds token {highest}, expected tokens below {labels}: encode "
            "it with the tokeniser of the model"
        )
    longest = max(len(answer) for answer in bank)
    table = np.full((len(bank), longest), IGNORED, np.int32)
    for row, answer in enumerate(bank):
        table[row, : len(answer)] = answer
    return _replaced(key, inputs, targets, jnp.asarray(table))


def wrong_labels(key: PRNGKey, labels: Any, classes: int) -> Array:
    """(n,) one of the other classes for each, all alike.

    Raises:
        ValueError: there is no other class.
    """
    if classes < 2:
        raise ValueError(
            f"a wrong label was asked for among {classes} class, expected two or more: "
            "take a method that needs none"
        )
    step = jax.random.randint(key, labels.shape, 1, classes, labels.dtype)
    return (labels + step) % classes


def _replaced(key: PRNGKey, inputs: Any, targets: Any, table: Any) -> tuple[Any, Any]:
    count, length = targets.shape
    drawn = table[jax.random.randint(key, (count,), 0, len(table))]
    first = jnp.argmax(targets >= 0, axis=1)
    place = jnp.arange(length)[None] - first[:, None]

    def at(place: Any) -> Any:
        inside = (place >= 0) & (place < table.shape[1])
        clipped = jnp.clip(place, 0, table.shape[1] - 1)
        return jnp.where(inside, jnp.take_along_axis(drawn, clipped, axis=1), IGNORED)

    # Nothing is asked of a row that asks for nothing.
    some = jnp.any(targets >= 0, axis=1)[:, None]
    answers = jnp.where(some, at(place), IGNORED).astype(targets.dtype)
    read = jnp.where(place <= 0, inputs, jnp.maximum(at(place - 1), 0))
    return jnp.where(some, read, inputs).astype(inputs.dtype), answers
