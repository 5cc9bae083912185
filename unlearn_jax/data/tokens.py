"""Sequences of tokens as examples: shifted by one, supervised where a mask says so.

Everywhere, ``inputs`` are tokens (n, t) int32 and ``targets`` (n, t) int32: at position
s the token that should follow position s, or :data:`IGNORED` where none is asked for:
in a question, in padding. A model reads from left to right, so that what stands behind
the last target decides nothing, and the padding token is free.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from unlearn_jax.types import Batch

IGNORED = -1
"""Target of a position that is not supervised."""
BYTES = 256
"""Tokens of the byte alphabet, without the end."""
END = 256
"""Token after the last byte of an answer; with it the byte alphabet has 257."""

Tokeniser: TypeAlias = Callable[[str], Sequence[int]]
"""Text -> token numbers, without any special one."""


def byte_tokens(text: str) -> list[int]:
    """The UTF-8 bytes of a text, numbers from 0 to 255."""
    return list(text.encode())


def byte_text(tokens: Sequence[int] | np.ndarray) -> str:
    """Undo :func:`byte_tokens`, up to the first :data:`END`; broken bytes become �."""
    whole = [int(token) for token in tokens]
    stop = whole.index(END) if END in whole else len(whole)
    return bytes(token for token in whole[:stop] if token < BYTES).decode(
        errors="replace"
    )


def continuations(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    length: int,
    end: int | None = None,
) -> Batch:
    """Prompts with their answers: the answers are supervised, the prompts only read.

    Args:
        prompts: Token numbers of each example, at least one: the first token of an
            answer is predicted from the last of its prompt.
        answers: Token numbers that follow.
        length: t; what is shorter is padded behind, what is longer is refused.
        end: Token that closes every answer and is supervised too; None for none.

    Returns:
        Batch of n examples in numpy, every weight one.

    Raises:
        ValueError: an empty prompt or answer, one longer than ``length``, or not as
            many answers as prompts.
    """
    if len(prompts) != len(answers):
        raise ValueError(
            f"got {len(prompts)} prompts and {len(answers)} answers, expected one "
            "answer for each prompt: drop those that lack a partner"
        )
    tokens = np.zeros((len(prompts), length), np.int32)
    targets = np.full((len(prompts), length), IGNORED, np.int32)
    closing = [] if end is None else [end]
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        whole = [*prompt, *answer, *closing]
        if not len(prompt) or len(whole) == len(prompt):
            raise ValueError(
                f"example {row} has a prompt of {len(prompt)} and an answer of "
                f"{len(answer)} tokens, expected at least one of each: begin the "
                "prompt with a token that says so, and drop empty answers"
            )
        if len(whole) - 1 > length:
            raise ValueError(
                f"example {row} has {len(whole)} tokens, expected at most "
                f"{length + 1}: raise the length, or shorten the example"
            )
        tokens[row, : len(whole) - 1] = whole[:-1]
        targets[row, len(prompt) - 1 : len(whole) - 1] = whole[len(prompt) :]
    return Batch(tokens, targets, np.ones(len(prompts), np.float32))


def sequences(tokens: np.ndarray) -> Batch:
    """Whole sequences of one length: every token but the first is supervised.

    Args:
        tokens: (n, t + 1) integers.

    Returns:
        Batch of (n, t) tokens, every weight one.

    Raises:
        ValueError: not a table of at least two tokens in a row.
    """
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise ValueError(
            f"got tokens of shape {tokens.shape}, expected (n, t + 1) with at least "
            "one token to predict: give one sequence in each row"
        )
    whole = np.asarray(tokens, np.int32)
    return Batch(whole[:, :-1], whole[:, 1:], np.ones(len(whole), np.float32))


def windows(tokens: Sequence[int] | np.ndarray, length: int) -> Batch:
    """One long text cut into rows; every token but its first is predicted once.

    The first token of a row is predicted at the end of the row before, so cutting
    shortens what a token is predicted from and leaves no token out. The last row is
    padded.

    Raises:
        ValueError: fewer than two tokens.
    """
    flat = np.asarray(tokens, np.int32)
    if flat.ndim != 1 or len(flat) < 2:
        raise ValueError(
            f"got tokens of shape {flat.shape}, expected a row of at least two: the "
            "second is the first to predict"
        )
    count = -(-(len(flat) - 1) // length)
    inputs = np.zeros(count * length, np.int32)
    targets = np.full(count * length, IGNORED, np.int32)
    inputs[: len(flat) - 1], targets[: len(flat) - 1] = flat[:-1], flat[1:]
    ones = np.ones(count, np.float32)
    return Batch(inputs.reshape(count, -1), targets.reshape(count, -1), ones)


def lengthened(batch: Batch, length: int) -> Batch:
    """The same examples with more padding behind, t = ``length``.

    Raises:
        ValueError: they are longer already.
    """
    tokens, targets = np.asarray(batch.inputs), np.asarray(batch.targets)
    more = length - tokens.shape[1]
    if more < 0:
        raise ValueError(
            f"got sequences of {tokens.shape[1]} tokens, expected at most {length}: "
            "raise the length"
        )
    sides = ((0, 0), (0, more))
    return batch._replace(
        inputs=np.pad(tokens, sides),
        targets=np.pad(targets, sides, constant_values=IGNORED),
    )


def packed(batch: Batch, length: int) -> Batch:
    """Several examples in a row, a negative token between them; the order is kept.

    The transformer (``models.transformer``) lets no position see past a negative token,
    so that the losses of all tokens are what they were, and so is their sum. Rows are
    new examples: a mean per row weighs tokens otherwise, and a request for one of the
    old ones cannot be made any more. Pack what is trained on, not what is forgotten.

    Args:
        batch: Examples of weight one, each used up to its last supervised position.
        length: t of the rows.

    Returns:
        Batch of fewer rows in numpy, every weight one; padding is negative too.

    Raises:
        ValueError: an example longer than a row, one without a supervised position, or
            weights other than one.
    """
    tokens, targets = np.asarray(batch.inputs), np.asarray(batch.targets)
    if np.any(np.asarray(batch.weights) != 1):
        raise ValueError(
            "got weights other than 1, which a row of several examples cannot have: "
            "take the examples that are there before packing"
        )
    asked = targets != IGNORED
    used = np.where(asked.any(1), asked.shape[1] - np.argmax(asked[:, ::-1], axis=1), 0)
    if used.min() < 1 or used.max() > length:
        raise ValueError(
            f"examples use from {used.min()} to {used.max()} tokens, expected from 1 "
            f"to the {length} of a row: drop the empty ones, raise the length"
        )
    rows: list[list[int]] = [[]]
    filled = 0
    for example, size in enumerate(used):
        if rows[-1] and filled + 1 + size > length:
            rows.append([])
            filled = 0
        filled += size + bool(rows[-1])
        rows[-1].append(example)
    inputs = np.full((len(rows), length), IGNORED, np.int32)
    wanted = np.full((len(rows), length), IGNORED, np.int32)
    for row, members in enumerate(rows):
        place = 0
        for example in members:
            size = used[example]
            inputs[row, place : place + size] = tokens[example, :size]
            wanted[row, place : place + size] = targets[example, :size]
            place += size + 1
    return Batch(inputs, wanted, np.ones(len(rows), np.float32))


def read_text(path: str | Path) -> str:
    """A plain text file in UTF-8.

    Raises:
        FileNotFoundError: there is none.
        ValueError: an empty file, or one that is not UTF-8.
    """
    try:
        text = Path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); convert "
            "it, for instance with iconv"
        ) from None
    if not text:
        raise ValueError(f"{path} is empty, expected text: give another file")
    return text
