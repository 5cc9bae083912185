"""The tables of a comparison: what methods do, whether one can tell, what they cost."""

import math
from collections.abc import Mapping, Sequence

from unlearn_jax.results import cells, checks
from unlearn_jax.results.columns import (
    CAN_ONE_TELL,
    WHAT_IT_COSTS,
    WHAT_IT_DOES,
    Column,
    brought,
    footnotes,
    header,
    present,
)
from unlearn_jax.results.leader import leader
from unlearn_jax.results.record import Record
from unlearn_jax.results.run import Run
from unlearn_jax.results.summary import (
    FLOOR,
    ORACLE,
    ORIGINAL,
    REFERENCES,
    CellKey,
    Summary,
    aims_at_oracle,
    lookup,
    methods_in_order,
    summarise,
)
from unlearn_jax.results.table import Cell, Table

TABLES = (
    ("what it does", WHAT_IT_DOES),
    ("can one tell", CAN_ONE_TELL),
    ("what it costs", WHAT_IT_COSTS),
)

FIRST = {
    "what it does": ("check", "accuracy forget", "rmse forget", "accuracy test"),
    "can one tell": ("loss attack", "agreement forget", "agreement test"),
    "what it costs": ("request ÷", "prepare ÷", "parameter change"),
}
"""Columns that a summary shows before the others."""

_TIMES = "\N{MULTIPLICATION SIGN}"
_COMMON = (
    "Cells: mean ± standard error over training seeds, two significant digits of the "
    "error; other seeds are averaged inside each training seed. ± ? and [?, ?]: one "
    "training seed, or one measurement for all, tells nothing of the error.",
    "Bold: ahead of the second best by more than two standard errors, among methods "
    "that changed something and were not destroyed; for → the lead is in |gap|.",
    "oracle vs oracle: |Δ| is the mean difference of two oracles that differ by their "
    "training seed only; in brackets, where the mean gap of fresh oracles, as many as "
    "training seeds, lies in 95 of 100 cases. No method can be expected to do better.",
    f"{cells.NO_APPLICATION}: does not apply (the original costs nothing to forget; "
    "nothing to prepare; an oracle has no gap to itself; the platform does not tell "
    "bytes; the floor has differences only).",
)


def comparison_tables(records: Sequence[Record], run: Run) -> list[Table]:
    """Up to four tables of one request: a table without any column is left out.

    Args:
        records: Of one dataset, model and request.
        run: Where they came from; goes to the caption.

    Raises:
        ValueError: no records, or records of several requests.
    """
    groups = by_request(records)
    if len(groups) != 1:
        raise ValueError(f"expected the records of one request, got {len(groups)}")
    summaries = summarise(records)
    methods = ranked(methods_in_order(records), summaries)
    caption = _caption(records, run)
    tables = []
    for name, columns in (*TABLES, ("of one's own", brought(summaries))):
        shown = present(columns, summaries)
        if shown:
            tables.append(_table(name, caption, shown, methods, summaries))
    return tables


def ranked(methods: Sequence[str], summaries: Mapping[CellKey, Summary]) -> list[str]:
    """The nearest to the oracles first; references stay where they are."""

    def rank(method: str) -> tuple[bool, float]:
        useless = {checks.CHANGED_NOTHING, checks.DESTROYED}
        said = checks.words(method, summaries)
        failed = any(word.startswith("failed") for word in said)
        return failed or bool(useless & set(said)), checks.distance(method, summaries)

    own = [method for method in methods if method not in REFERENCES]
    first = [method for method in methods if method == ORIGINAL]
    last = [method for method in methods if method in (ORACLE, FLOOR)]
    return [*first, *sorted(own, key=rank), *last]


def answer(records: Sequence[Record]) -> str:
    """Who is nearest to retraining, and at what share of its price: one sentence."""
    summaries = summarise(records)
    names = methods_in_order(records)
    order = [name for name in ranked(names, summaries) if name not in REFERENCES]
    if not order or not math.isfinite(checks.distance(order[0], summaries)):
        return "No method can be compared with the oracles here."
    best = order[0]
    price = _price(best, summaries)
    paid = f", at {cells.plain(price)} times its price" if math.isfinite(price) else ""
    said = {name: checks.words(name, summaries) for name in order}
    inside = [name for name in order if checks.INSIDE_THE_FLOOR in said[name]]
    told = f"inside the floor: {', '.join(inside)}" if inside else "none is inside"
    if any(checks.UNDECIDED in words for words in said.values()) and not inside:
        told = "who is inside the floor is undecided"
    far = cells.plain(checks.distance(best, summaries))
    return f"Nearest to retraining: {best} ({far} floors){paid}; {told}."


def _price(method: str, summaries: Mapping[CellKey, Summary]) -> float:
    """Processor time of one request over that of one retraining."""
    own = lookup(summaries, method, "forget_cpu_seconds", None)
    whole = lookup(summaries, ORACLE, "forget_cpu_seconds", None)
    if own is None or whole is None or own.failure or not whole.mean > 0:
        return math.nan
    return own.mean / whole.mean


def by_request(
    records: Sequence[Record],
) -> dict[tuple[str, str, str], list[Record]]:
    """Records by (dataset, model, request), in order of appearance."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        place = (record.dataset, record.model, record.request)
        groups.setdefault(place, []).append(record)
    return groups


def _table(
    name: str,
    caption: str,
    columns: list[Column],
    methods: list[str],
    summaries: Mapping[CellKey, Summary],
) -> Table:
    checked = {method: checks.words(method, summaries) for method in methods}
    fit = [
        method
        for method in methods
        if method not in REFERENCES
        and not {checks.CHANGED_NOTHING, checks.DESTROYED} & set(checked[method])
    ]
    leaders = [leader(column, columns, fit, summaries) for column in columns]
    with_check = name == TABLES[0][0]
    rows, failures = [], []
    for method in methods:
        texts = [_text(column, method, summaries) for column in columns]
        row = [
            Cell(text, method == best)
            for text, best in zip(texts, leaders, strict=True)
        ]
        titles = [column.title for column in columns]
        if with_check:
            row.append(Cell(", ".join(checked[method])))
            titles.append("check")
        failures += [
            f"{method}, {title}: {cell.text.removeprefix('failed: ')}"
            for title, cell in zip(titles, row, strict=True)
            if cell.text.startswith("failed: ")
        ]
        rows.append((Cell(method), *row))
    notes = footnotes(columns)
    if with_check:
        notes.append(checks.FOOTNOTE)
        if any(
            word.startswith("solver ") for said in checked.values() for word in said
        ):
            notes.append(checks.SOLVER_NOTE)
        if checks.indistinct(summaries, methods):
            notes.insert(
                0,
                "Mind: the original itself lies inside the floor. By these metrics and "
                "this many seeds, doing nothing cannot be told from retraining.",
            )
    return Table(
        name=name,
        caption=f"{name.capitalize()}. {caption}",
        header=("method", *map(header, columns), *(["check"] if with_check else [])),
        rows=tuple(rows),
        footnotes=(*notes, *_COMMON),
        failures=tuple(failures),
        first=FIRST.get(name, ()),
    )


def _text(column: Column, method: str, summaries: Mapping[CellKey, Summary]) -> str:
    found = lookup(summaries, method, column.metric, column.split)
    if found is None:
        may_lack = method in REFERENCES or column.optional
        return cells.NO_APPLICATION if may_lack else "failed: not recorded"
    if found.failure:
        return f"failed: {found.failure}"
    if method == FLOOR:
        return _floor_text(column, found)
    if column.kind == "gap":
        if found.gap is not None:
            return cells.interval(found.gap.mean, found.gap.low, found.gap.high)
        if method == ORACLE:
            return cells.NO_APPLICATION
        finite = math.isfinite(found.mean)
        return f"failed: {'no oracle value' if finite else 'not finite'}"
    if column.kind == "price":
        whole = lookup(summaries, ORACLE, "forget_cpu_seconds", None)
        if whole is None or whole.failure or not whole.mean > 0:
            return cells.NO_APPLICATION
        return cells.plain(found.mean / whole.mean)
    factor = column.factor
    return cells.mean_and_error(factor * found.mean, factor * found.standard_error)


def _floor_text(column: Column, found: Summary) -> str:
    if not aims_at_oracle(column.metric):
        return cells.plain(column.factor * found.mean)
    beside_gap = column.kind == "value" and column.metric in ("accuracy", "rmse")
    if beside_gap:
        return cells.NO_APPLICATION
    width = found.floor.half_width if found.floor else math.nan
    return cells.floor(column.factor * found.mean, column.factor * width)


def _caption(records: Sequence[Record], run: Run) -> str:
    first = records[0]
    own = [r for r in records if r.method not in REFERENCES] or [
        r for r in records if r.method in (ORIGINAL, ORACLE)
    ]
    counts = [
        len({getattr(record, level) for record in own})
        for level in ("train_seed", "unlearn_seed", "evaluate_seed")
    ]
    seeds = f" {_TIMES} ".join(
        f"{count} {level}"
        for count, level in zip(counts, ("train", "unlearn", "evaluate"), strict=True)
    )
    return (
        f"Scale: {run.scale}. Data: {first.dataset}. Model: {first.model}. "
        f"Request: {first.request}. Seeds: {seeds}. Run {first.run}."
    )
