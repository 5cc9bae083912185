"""From rows to means, errors, gaps to the oracle and floors; nothing is dropped."""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from unlearn_jax.evaluation.gap import Floor, Gap, floor, gap
from unlearn_jax.results.about import about
from unlearn_jax.results.record import Record

ORIGINAL, ORACLE, FLOOR = "original", "oracle", "oracle vs oracle"
REFERENCES = (ORIGINAL, ORACLE, FLOOR)

CellKey = tuple[str, str, str]
"""Method, metric, split."""


class Summary(NamedTuple):
    """All records of one method, metric and split in one request.

    Attributes:
        method: Key of the method.
        metric: Key of the metric.
        split: Split, or ``all``, or empty.
        unit: Unit of every number here.
        seeds: How many training, unlearning and evaluation seeds.
        mean: Over training seeds of the mean inside each; nan where it failed. For
            the pairs of ``oracle vs oracle`` the mean over pairs.
        standard_error: Of the mean, over training seeds; inf for one, and for seconds
            that were measured once for all seeds. nan for pairs, which are not
            independent.
        gap: Difference to the oracle; None where there is no oracle or no number.
        floor: Spread of the oracles in this metric, or of their pairs where it
            compares two models already; None for fewer than two.
        failure: Why there is no mean; empty otherwise. One failed record fails the
            whole: a mean over the survivors would flatter.
    """

    method: str
    metric: str
    split: str
    unit: str
    seeds: tuple[int, int, int]
    mean: float
    standard_error: float
    gap: Gap | None
    floor: Floor | None
    failure: str


def summarise(records: Iterable[Record]) -> dict[CellKey, Summary]:
    """Average the records of one request, cell by cell, in order of appearance.

    Evaluation and unlearning seeds are averaged inside each training seed; errors and
    intervals run over training seeds. Records with neither a value nor a failure say
    "does not apply" and make no cell.
    """
    return dict(_summarised(tuple(records)))


@functools.lru_cache(maxsize=4)  # every table and figure of a request asks for it
def _summarised(records: tuple[Record, ...]) -> dict[CellKey, Summary]:
    cells: dict[CellKey, list[Record]] = {}
    for record in _spread_failures(records):
        if record.value is not None or record.failure:
            key = (record.method, record.metric, record.split)
            cells.setdefault(key, []).append(record)
    trained = {r.train_seed for (m, _, _), c in cells.items() if m != FLOOR for r in c}
    floors = {
        key[1:]: _floor(cells, *key[1:], seeds=max(len(trained), 1)) for key in cells
    }
    return {key: _summary(key, rows, floors[key[1:]]) for key, rows in cells.items()}


def methods_in_order(records: Iterable[Record]) -> list[str]:
    """Original first, then methods as they come, then the oracle and the floor."""
    seen = list(dict.fromkeys(record.method for record in records))
    last = [name for name in (ORACLE, FLOOR) if name in seen]
    first = [ORIGINAL] if ORIGINAL in seen else []
    return first + [name for name in seen if name not in REFERENCES] + last


def lookup(
    summaries: Mapping[CellKey, Summary], method: str, metric: str, split: str | None
) -> Summary | None:
    """One summary; with split None the first of any split.

    A metric that failed before it had splits stands for each of them.
    """
    if split is not None and (method, metric, split) in summaries:
        return summaries[method, metric, split]
    found = (s for key, s in summaries.items() if key[:2] == (method, metric))
    return next((s for s in found if split is None or _failed_whole(s)), None)


def _failed_whole(summary: Summary) -> bool:
    return bool(summary.failure) and summary.split in ("", "all")


def aims_at_oracle(metric: str) -> bool:
    """Whether the oracle's own value is the aim (else it is up, down or nothing)."""
    return about(metric).direction == "oracle"


def _spread_failures(records: Iterable[Record]) -> list[Record]:
    """A metric that failed before it had splits has failed on each of them."""
    records = list(records)
    splits: dict[str, dict[str, None]] = {}
    for record in records:
        if record.split and record.value is not None:
            splits.setdefault(record.metric, {})[record.split] = None
    spread = []
    for record in records:
        known = splits.get(record.metric, {})
        if record.failure and record.split in ("", "all") and record.split not in known:
            names = list(known) or [record.split]
            spread += [record._replace(split=name) for name in names]
        else:
            spread.append(record)
    return spread


def _summary(key: CellKey, rows: list[Record], spread: Floor | None) -> Summary:
    levels = ("train_seed", "unlearn_seed", "evaluate_seed")
    seeds = [sorted({getattr(row, level) for row in rows}) for level in levels]
    counts = (len(seeds[0]), len(seeds[1]), len(seeds[2]))
    made = Summary(*key, rows[0].unit, counts, math.nan, math.nan, None, spread, "")
    if failure := _failure(rows, counts, pairs=key[0] == FLOOR):
        return made._replace(failure=failure)
    if key[0] == FLOOR:
        return made._replace(mean=_pair_mean(rows))
    values = _array(rows, [r.value for r in rows], seeds)
    per_seed = values.mean(axis=(1, 2))
    error = (
        float(per_seed.std(ddof=1) / math.sqrt(per_seed.size))
        if per_seed.size > 1 and np.all(np.isfinite(per_seed))
        else math.inf
    )
    if made.unit == "s" and np.all(values == values.flat[0]):
        error = math.inf  # one measurement, written down for every seed
    made = made._replace(mean=float(per_seed.mean()), standard_error=error)
    if key[0] == ORACLE or not aims_at_oracle(key[1]):
        return made
    if any(row.oracle is None for row in rows):
        return made
    oracle = _array(rows, [r.oracle for r in rows], seeds)[:, 0, :]
    if not (np.all(np.isfinite(values)) and np.all(np.isfinite(oracle))):
        return made
    return made._replace(gap=gap(values, oracle))


def _failure(rows: list[Record], counts: tuple[int, int, int], *, pairs: bool) -> str:
    failed = [row for row in rows if row.value is None]
    if failed:
        words = (r.failure.removeprefix(f"metric {r.metric!r}: ") for r in failed)
        reasons = "; ".join(dict.fromkeys(words))
        part = "" if len(failed) == len(rows) else f" ({len(failed)} of {len(rows)})"
        return reasons + part
    places = {row[5:8] for row in rows}
    if len(places) < len(rows):
        return f"{len(rows) - len(places)} values recorded twice"
    if not pairs and len(rows) < math.prod(counts):
        missing = math.prod(counts) - len(rows)
        return f"{missing} of {math.prod(counts)} seeds not recorded"
    return ""


def _array(
    rows: list[Record],
    numbers: list[float | None],
    seeds: list[list[int]],
) -> np.ndarray:
    array = np.full([len(level) for level in seeds], np.nan)
    for row, number in zip(rows, numbers, strict=True):
        place = (row.train_seed, row.unlearn_seed, row.evaluate_seed)
        index = tuple(s.index(p) for s, p in zip(seeds, place, strict=True))
        array[index] = number
    return array


def _pair_mean(rows: list[Record]) -> float:
    """Mean |difference| of two oracles, or mean closeness where that is the metric."""
    if not aims_at_oracle(rows[0].metric):
        return float(np.mean([_nan(row.value) for row in rows]))
    both = [(r.value, r.oracle) for r in rows]
    apart = [abs(a - b) for a, b in both if a is not None and b is not None]
    return float(np.mean(apart)) if apart else math.nan


def _floor(
    cells: dict[CellKey, list[Record]], metric: str, split: str, *, seeds: int
) -> Floor | None:
    """The oracles' spread, from all that the pairs name, else from their own rows."""
    values: dict[int, list[float | None]] = {}
    if not aims_at_oracle(metric):
        if about(metric).direction == "down" or not about(metric).direction:
            return None
        for row in cells.get((FLOOR, metric, split), []):
            values.setdefault(row.train_seed, []).append(row.value)
        return _floor_of(values, seeds)
    for row in cells.get((FLOOR, metric, split), []):
        values.setdefault(row.train_seed, []).append(row.value)
        values.setdefault(row.unlearn_seed, []).append(row.oracle)
    if not values:
        for row in cells.get((ORACLE, metric, split), []):
            values.setdefault(row.train_seed, []).append(row.value)
    return _floor_of(values, seeds)


def _floor_of(values: Mapping[int, list[float | None]], seeds: int) -> Floor | None:
    numbers = np.array([np.mean([_nan(v) for v in many]) for many in values.values()])
    if numbers.size < 2 or not np.all(np.isfinite(numbers)):
        return None
    return floor(numbers, seeds=seeds)


def _nan(number: float | None) -> float:
    return math.nan if number is None else number
