"""A number of a comparison beside its oracle's; numbers as JSON holds them."""

import math
from typing import Any, NamedTuple

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Record(NamedTuple):
    """One number of a comparison, with the oracle's where there is one.

    Attributes:
        run: Id of the run it was measured in.
        dataset: The data's true title.
        model: Name of the model.
        method: Key of the method; ``original``, ``oracle`` and ``oracle vs oracle``
            are rows like any other. For ``oracle vs oracle`` the pair of oracles
            (i, j) stands in ``train_seed`` and ``unlearn_seed``.
        request: What was to be forgotten.
        train_seed: Seed the original and the oracle were trained with.
        unlearn_seed: Seed of the method's own randomness.
        evaluate_seed: Seed of the metric's own randomness.
        metric: Key of the metric.
        split: ``retain``, ``forget``, ``test``, or empty where none applies.
        value: The number; None if it could not be measured.
        oracle: The oracle's value of the same metric at the same train and evaluate
            seed; None where there is none.
        unit: Unit of ``value`` and ``oracle``.
        failure: Why ``value`` is None, in words; empty otherwise.
    """

    run: str
    dataset: str
    model: str
    method: str
    request: str
    train_seed: int
    unlearn_seed: int
    evaluate_seed: int
    metric: str
    split: str
    value: float | None
    oracle: float | None
    unit: str
    failure: str = ""


class RecordError(ValueError):
    """A file of results holds something that is not one; names the file and line."""


def encode_number(number: Any) -> float | str | None:
    """A number as JSON can hold it: ``"nan"``, ``"inf"``, ``"-inf"`` as strings."""
    if number is None:
        return None
    number = float(number)
    return number if math.isfinite(number) else str(number)


def decode_number(number: Any) -> float | None:
    """Undo ``encode_number``.

    Raises:
        ValueError: neither a number, nor null, nor one of the three strings.
    """
    if number is None:
        return None
    if isinstance(number, str) and number in _NON_FINITE:
        return _NON_FINITE[number]
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{number!r} is not a number")
    return float(number)
