"""Rows of a comparison to its tables and figures, request by request."""

import re
from typing import Any

from experiments.compare.config import Config
from experiments.compare.presets import origin
from experiments.frame.findings import Drawing, Finding
from experiments.frame.study import Results
from unlearn_jax.results.comparison import answer, by_request, comparison_tables
from unlearn_jax.results.listing import summary_csv
from unlearn_jax.results.pictures import comparison_pictures
from unlearn_jax.results.record import Record
from unlearn_jax.results.rows import Row, Rows
from unlearn_jax.results.summary import (
    FLOOR,
    ORACLE,
)


def show(config: Config, results: Results) -> list[Finding]:
    """One finding for each request: its checks, up to three tables, three figures."""
    findings: list[Finding] = []
    run, rows = results.run, results.rows
    records = records_of(rows, run=run.id, dataset=run.dataset, model=config.model.name)
    groups = by_request(records)
    for number, ((_, model, request), group) in enumerate(groups.items(), start=1):
        tables = comparison_tables(group, results.run)
        first = f"{number}-" if len(groups) > 1 else ""
        stem = _plain(f"{first}{model}-{request}")
        drawings = [
            Drawing(f"{stem}-{kind}", figure, data, caption, spoken)
            for kind, figure, data, caption, spoken in comparison_pictures(
                group, results.arrays, request
            )
        ]
        named = [t._replace(name=f"{stem} {t.name}") for t in tables]
        title = f"To forget: {request} ({model})"
        words = [answer(group), origin(config)]
        files = {} if findings else {"summary.csv": summary_csv(records)}
        findings.append(Finding(named, drawings, title, words, files))
    return findings


def records_of(
    rows: Rows, *, run: str = "", dataset: str = "", model: str = ""
) -> list[Record]:
    """Every row beside the oracle's number of the same seeds."""
    oracles = {_place(row): row.value for row in rows if row.at["method"] == ORACLE}
    other = {_pair(row): row.value for row in rows if row.at.get("side") == "second"}
    records = []
    for row in rows:
        if row.at.get("side") == "second":
            continue
        pair = row.at["method"] == FLOOR
        records.append(
            Record(
                run=run,
                dataset=dataset,
                model=model,
                method=str(row.at["method"]),
                request=str(row.at["request"]),
                train_seed=int(row.at["train_seed"]),
                unlearn_seed=int(row.at["unlearn_seed"]),
                evaluate_seed=int(row.at["evaluate_seed"]),
                metric=row.metric,
                split=str(row.at["split"]),
                value=row.value,
                oracle=other.get(_pair(row)) if pair else oracles.get(_place(row)),
                unit=row.unit,
                failure=row.failure,
            )
        )
    return records


def _place(row: Row) -> tuple[Any, ...]:
    names = ("request", "split", "train_seed", "evaluate_seed")
    return (row.metric, *(row.at[name] for name in names))


def _pair(row: Row) -> tuple[Any, ...]:
    return (*_place(row), row.at["unlearn_seed"])


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "request"
