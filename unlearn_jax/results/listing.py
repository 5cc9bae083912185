"""Every summary as a line: a CSV for other programs, and the list of what failed."""

import csv
import io
from collections.abc import Mapping, Sequence

from unlearn_jax.results.cells import csv_cell
from unlearn_jax.results.comparison import by_request
from unlearn_jax.results.record import Record
from unlearn_jax.results.summary import CellKey, Summary, summarise
from unlearn_jax.results.table import Table

_HEADER = (
    "dataset model request method metric split unit train_seeds unlearn_seeds "
    "evaluate_seeds mean standard_error gap gap_low gap_high floor_half_width failure"
)


def summary_csv(records: Sequence[Record]) -> str:
    """All metrics, tabulated or not, as plain numbers; a line per method and split."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER.split())
    for place, group in by_request(records).items():
        for s in summarise(group).values():
            gap = (s.gap.mean, s.gap.low, s.gap.high) if s.gap else ("", "", "")
            width = s.floor.half_width if s.floor else ""
            numbers = (*s.seeds, s.mean, s.standard_error, *gap, width)
            words = (*place, s.method, s.metric, s.split, s.unit, *numbers, s.failure)
            writer.writerow([csv_cell(word) for word in words])
    return text.getvalue()


def failures(
    request: str, summaries: Mapping[CellKey, Summary], tables: Sequence[Table]
) -> list[str]:
    """One line per number that failed or that a table misses."""
    failed = [s for s in summaries.values() if s.failure]
    lines = [f"{s.method}, {s.metric} {s.split}".strip() for s in failed]
    lines = [f"{a}: {s.failure}" for a, s in zip(lines, failed, strict=True)]
    reasons = {s.failure for s in failed}
    lines += [
        line
        for table in tables
        for line in table.failures
        if line.partition(": ")[2] not in reasons
    ]
    return [f"{request}: {line}" for line in lines]
