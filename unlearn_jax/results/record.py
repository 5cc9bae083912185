"""A result is a row: records (one number each) and the file that holds them."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from unlearn_jax.storage.checksum import checked_row, with_check
from unlearn_jax.storage.write import write_bytes

RECORDS_FILE = "records.jsonl"

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_NUMBERS = ("value", "oracle")
_INTEGERS = ("train_seed", "unlearn_seed", "evaluate_seed")


class Record(NamedTuple):
    """One number, one row, one line of JSON.

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


def record_to_dict(record: Record) -> dict[str, Any]:
    """A record as strict JSON can hold it; ``record_from_dict`` gives it back.

    Floats keep every digit (the shortest text that reads back to the same bits).
    """
    row = record._asdict()
    row |= {name: encode_number(row[name]) for name in _NUMBERS}
    row |= {name: int(row[name]) for name in _INTEGERS}
    return row


def record_from_dict(row: Any) -> Record:
    """Undo ``record_to_dict``.

    Raises:
        ValueError: not an object, or a field is missing, unknown or of a wrong type.
    """
    if not isinstance(row, dict):
        raise ValueError("expected an object")
    required = set(Record._fields) - set(Record._field_defaults)
    if missing := sorted(required - set(row)):
        raise ValueError(f"missing {', '.join(missing)}")
    if unknown := sorted(set(row) - set(Record._fields)):
        raise ValueError(f"unknown {', '.join(unknown)}")
    values = dict(row)
    for name in _NUMBERS:
        values[name] = decode_number(row[name])
    for name in set(row) - set(_NUMBERS):
        kind = int if name in _INTEGERS else str
        if not isinstance(row[name], kind) or isinstance(row[name], bool):
            raise ValueError(f"{name} is {row[name]!r}, expected {kind.__name__}")
    return Record(**values)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write all records at once, one JSON object a line; the file is never half done.

    Each line ends with its own checksum, ``"check"``. There is no append: a file of
    results is written whole (temporary file, forced to disk, renamed) or left as it
    was.

    Raises:
        StorageError: the folder cannot take the file.
    """
    rows = [with_check(record_to_dict(record)) for record in records]
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_bytes(Path(path), "".join(f"{line}\n" for line in lines).encode())


def read_records(path: Path) -> list[Record]:
    """Read what ``write_records`` wrote, every float to the same bits.

    Raises:
        FileNotFoundError: no such file.
        RecordError: a damaged line, by file and number; the others are whole.
    """
    records = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        try:
            records.append(record_from_dict(checked_row(line)))
        except ValueError as error:
            raise RecordError(
                f"{path}, line {number}: not a record ({error}); put the file back "
                "from a copy, or delete it and run the same command again: it goes on "
                "from what is kept beside it"
            ) from None
    return records
