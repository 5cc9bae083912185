"""A number and where it belongs: the only currency of results, and its file."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np

from unlearn_jax.results.record import RecordError, decode_number, encode_number
from unlearn_jax.storage.checksum import checked_row, with_check
from unlearn_jax.storage.write import write_bytes

ROWS_FILE = "rows.jsonl"

Place: TypeAlias = str | int | float
"""What a coordinate may be: a name, a count, a setting."""


class Row(NamedTuple):
    """One number and where it belongs; one line of JSON.

    Attributes:
        metric: What was measured.
        value: The number; None if it could not be measured.
        unit: Of the value, "1" for none.
        at: Coordinates: ``{"method": "ssd", "l2": 1e-3, "seed": 2}``.
        failure: Why there is no value, in words; empty otherwise.
    """

    metric: str
    value: float | None
    unit: str = "1"
    at: Mapping[str, Place] = MappingProxyType({})
    failure: str = ""


class Rows(Sequence[Row]):
    """Rows in the order in which they were measured, and ways to pick from them."""

    def __init__(self, rows: Iterable[Row] = ()):
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...
    def __getitem__(self, index: int | slice) -> "Row | Rows":
        found = self._rows[index]
        return found if isinstance(found, Row) else Rows(found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and self._rows == other._rows

    __hash__ = None  # type: ignore[assignment]

    def where(self, metric: str | None = None, **at: Place) -> "Rows":
        """The rows of a metric (None: of all) that have these coordinates."""
        return Rows(
            row
            for row in self._rows
            if metric in (None, row.metric)
            and all(name in row.at and row.at[name] == at[name] for name in at)
        )

    def places(self, name: str) -> list[Any]:
        """The different values of one coordinate, in order of appearance."""
        return list(dict.fromkeys(r.at[name] for r in self._rows if name in r.at))

    def by(self, name: str) -> "Iterator[tuple[Any, Rows]]":
        """Each value of one coordinate with its rows, in order of appearance."""
        return ((place, self.where(**{name: place})) for place in self.places(name))

    def metrics(self) -> list[str]:
        """The different metrics, in order of appearance."""
        return list(dict.fromkeys(row.metric for row in self._rows))

    def one(self, metric: str, **at: Place) -> Row:
        """The only row of that metric and place.

        Raises:
            KeyError: there is none, or more than one.
        """
        found = self.where(metric, **at)
        if len(found) != 1:
            raise KeyError(f"{len(found)} rows of {metric!r} at {at}, expected one")
        return found[0]

    def value(self, metric: str, **at: Place) -> float:
        """The only value of that metric and place; NaN where it failed.

        Raises:
            KeyError: there is none, or more than one.
        """
        return _number(self.one(metric, **at))

    def values(self, metric: str, **at: Place) -> np.ndarray:
        """All values of that metric and place, in order; NaN where one failed."""
        return np.array([_number(row) for row in self.where(metric, **at)])

    def mean(self, metric: str, **at: Place) -> tuple[float, float]:
        """Mean of :meth:`values` and its standard error; NaN where too few tell."""
        values = self.values(metric, **at)
        count = len(values)
        error = np.std(values, ddof=1) / np.sqrt(count) if count > 1 else np.nan
        return float(np.mean(values)) if count else np.nan, float(error)

    def grid(self, metric: str, *names: str, **at: Place) -> np.ndarray:
        """Values as an array with one axis for each coordinate named.

        An axis runs over the values of its coordinate among these rows, in order of
        appearance; NaN where there is no row.

        Raises:
            KeyError: two rows at one place.
        """
        found = self.where(metric, **at)
        axes = [found.places(name) for name in names]
        array = np.full([len(axis) for axis in axes], np.nan)
        taken: set[tuple[int, ...]] = set()
        for row in found:
            index = tuple(a.index(row.at[n]) for a, n in zip(axes, names, strict=True))
            if index in taken:
                raise KeyError(f"two rows of {metric!r} at {dict(row.at)}")
            taken.add(index)
            array[index] = _number(row)
        return array

    @property
    def failures(self) -> list[str]:
        """One line for each number that is missing."""
        return [
            " ".join([*map(str, row.at.values()), f"{row.metric}: {row.failure}"])
            for row in self._rows
            if row.failure
        ]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write all rows at once, a JSON object with its own checksum on each line.

    Raises:
        StorageError: the folder cannot take the file; the old one is as it was.
    """
    lines = [
        json.dumps(with_check(row_to_dict(row)), ensure_ascii=False, allow_nan=False)
        for row in rows
    ]
    write_bytes(Path(path), "".join(f"{line}\n" for line in lines).encode())


def read_rows(path: Path) -> Rows:
    """Read what ``write_rows`` wrote, every float to the same bits.

    Raises:
        FileNotFoundError: no such file.
        RecordError: a damaged line, by file and number.
    """
    rows = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        try:
            rows.append(row_from_dict(checked_row(line)))
        except ValueError as error:
            raise RecordError(
                f"{path}, line {number}: not a row of results ({error}); put the file "
                "back from a copy, or delete it and run the same command again: it "
                "goes on from what is kept beside it"
            ) from None
    return Rows(rows)


def row_to_dict(row: Row) -> dict[str, Any]:
    """A row as strict JSON holds it; :func:`row_from_dict` gives it back."""
    at = {name: _plain(value) for name, value in row.at.items()}
    return row._asdict() | {"value": encode_number(row.value), "at": at}


def row_from_dict(told: Any) -> Row:
    """Undo :func:`row_to_dict`.

    Raises:
        ValueError: not an object, or a field is missing, unknown or of a wrong type.
    """
    if not isinstance(told, dict) or set(told) != set(Row._fields):
        raise ValueError(f"expected an object with {', '.join(Row._fields)}")
    texts = (told["metric"], told["unit"], told["failure"])
    places = told["at"]
    if not all(isinstance(text, str) for text in texts) or not isinstance(places, dict):
        raise ValueError("expected text for metric, unit and failure, an object for at")
    for name, place in places.items():
        if isinstance(place, bool) or not isinstance(place, str | int | float):
            raise ValueError(f"{name} is {place!r}, expected text or a number")
    value = decode_number(told["value"])
    return Row(told["metric"], value, told["unit"], places, told["failure"])


def _plain(place: Any) -> Place:
    if isinstance(place, np.generic):
        place = place.item()
    if isinstance(place, bool) or not isinstance(place, str | int | float):
        raise TypeError(f"a coordinate cannot be {place!r}; give text or a number")
    if isinstance(place, float) and not math.isfinite(place):
        raise ValueError(f"a coordinate cannot be {place!r}; it must be finite")
    return place


def _number(row: Row) -> float:
    return math.nan if row.value is None else row.value
