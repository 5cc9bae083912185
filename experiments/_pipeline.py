"""The steps of a comparison: data, originals, oracles, forget, judge, record.

Every model and every judgement is kept under the run's folder as soon as it is made,
whole or not at all. A run that was killed goes on with the same command, and its
numbers are those of an undisturbed run (times apart: each is measured once).
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments._config import Config
from experiments._court import Court, Judged, oracle_values
from experiments._forget import Forgetter, Forgotten
from experiments._inputs import input_digests
from experiments._measure import Row, judge, metrics_for
from experiments._setting import Setting, build, seed_key
from experiments._train import Trained, train_members
from experiments.frame.progress import progress
from unlearn_jax.evaluation import METRICS
from unlearn_jax.evaluation.cost import Cost
from unlearn_jax.results.record import RECORDS_FILE, Record, write_records
from unlearn_jax.results.resume import open_run
from unlearn_jax.results.run import Run, new_run, write_run
from unlearn_jax.results.summary import FLOOR, ORACLE, ORIGINAL
from unlearn_jax.storage.arrays import write_arrays
from unlearn_jax.storage.store import Store
from unlearn_jax.types import Variables

ROW_NAMES = {"identity": ORIGINAL, "retrain": ORACLE}
"""Methods whose row in the tables has a name of its own."""


class Session(NamedTuple):
    """One run under way: its store, its setting, its id, the losses seen so far."""

    store: Store
    setting: Setting
    run: str
    losses: dict[str, list[np.ndarray]]


def compare(
    config: Config, report: Callable[[Path, Run], int], *, experiment: str = "compare"
) -> int:
    """Run a comparison to its end, or go on with one that was interrupted.

    Args:
        config: What to do.
        report: Called with the run's folder, which holds records.jsonl and arrays.npz
            (losses on the forgotten and the unseen examples), and the finished run;
            the run counts as finished only when it returns.
        experiment: Folder under ``config.results``.

    Returns:
        What ``report`` returned, the exit code.

    Raises:
        ValueError: something asked for cannot be done; nothing was trained.
        StorageError: the disk cannot take the results; what is finished is kept.
    """
    start = time.perf_counter()
    setting = build(config)
    run = new_run(
        experiment,
        config.scale,
        config,
        dataset=setting.dataset.title,
        inputs=input_digests(setting.dataset, config.requests),
    )
    store, run = open_run(config.results, run)
    with store:
        session = Session(store, setting, run.id, {})
        originals, courts = _train_all(store, setting)
        records: list[Record] = []
        for court in courts:
            records += _reference_records(session, court)
        records += _method_records(session, originals, courts)
        records.sort(key=lambda record: config.requests.index(record.request))
        losses = {key: np.stack(rows) for key, rows in session.losses.items()}
        write_arrays(store.folder / "arrays.npz", losses)
        write_records(store.folder / RECORDS_FILE, records)
        seconds = time.perf_counter() - start
        finished = run._replace(seconds=seconds, records=len(records))
        code = report(store.folder, finished)
        write_run(store.folder, finished)
    return code


def _train_all(store: Store, setting: Setting) -> tuple[list[Any], list[Court]]:
    config, learner = setting.config, setting.learner
    keys = [
        seed_key("train", config.seeds.first + i) for i in range(config.seeds.train)
    ]
    trained = train_members(
        store, "original", keys, learner, setting.train, config.members
    )
    judged = judge(setting)
    courts = []
    for asked in setting.asked:
        keys = [
            seed_key("oracle", config.seeds.first + m) for m in range(config.oracles)
        ]
        oracles = train_members(
            store,
            f"oracle {asked.name}",
            keys,
            learner,
            asked.request.retain,
            config.members,
        )
        courts.append(Court(setting, asked, judged, trained.members, oracles))
    return trained.members, courts


def _reference_records(session: Session, court: Court) -> list[Record]:
    """The rows of the oracle and of oracle against oracle."""
    store, config, where = session.store, session.setting.config, court.asked.name
    records, blank = [], _blank(session, court)
    with progress(f"judge oracles, {where}", config.oracles) as advance:
        for i in range(config.oracles):
            piece = f"{where}/{FLOOR}/{i}"
            if not store.has(piece):
                j, first, second = court.pair(i)
                store.save(piece, data={"j": j, "first": first, "second": second})
            data = store.load(piece).data
            first, second = (
                [Row(*row) for row in data[k]] for k in ("first", "second")
            )
            pair = blank._replace(method=FLOOR, train_seed=i, unlearn_seed=data["j"])
            records += _records(pair, first, oracle_values(second))
            advance(1)
    closeness = {n for n, m in METRICS.items() if m.direction in ("up", "down")}
    for i in range(config.seeds.train):
        piece = f"{where}/{ORACLE}/{i}"
        if not store.has(piece):
            _keep(store, piece, court.oracle(i), _training_rows(court.oracles))
        rows = _load(session, piece, f"{where}/{ORACLE}")
        rows = [row for row in rows if row.metric not in closeness]
        own = blank._replace(method=ORACLE, train_seed=i)
        records += _records(own, rows, oracle_values(rows))
    return records


def _method_records(
    session: Session, originals: list[Variables], courts: list[Court]
) -> list[Record]:
    """The rows of every method; "retrain" has its row already."""
    config, records = session.setting.config, []
    forgetter = Forgetter(session.setting, originals, session.store.folder)
    names = ["identity", *(n for n in config.methods if n not in ROW_NAMES)]
    cells = list(
        itertools.product(
            range(config.seeds.train), courts, range(config.seeds.unlearn)
        )
    )
    for name in names:
        row_name = ROW_NAMES.get(name, name)
        with progress(f"forget and judge: {row_name}", len(cells)) as advance:
            for i, court, j in cells:
                rows = _method_rows(session, forgetter, court, (name, i, j))
                oracle = _load(session, f"{court.asked.name}/{ORACLE}/{i}")
                blank = _blank(session, court)._replace(
                    method=row_name, train_seed=i, unlearn_seed=j
                )
                records += _records(blank, rows, oracle_values(oracle))
                advance(1)
    return records


def _method_rows(
    session: Session, forgetter: Forgetter, court: Court, cell: tuple[str, int, int]
) -> list[Row]:
    """Rows of one unlearned model; where it fails, rows that name the failure."""
    name, i, j = cell
    where = f"{court.asked.name}/{ROW_NAMES.get(name, name)}"
    piece = f"{where}/{i}-{j}"
    if not session.store.has(piece):
        try:
            done = forgetter(name, i, j, court.asked)
            judged = court.unlearned(done.variables, i, j)
        except Exception as error:
            # A method may fail in any way; the comparison goes on and says so.
            lines = str(error).strip().splitlines() or ["no message"]
            reason = f"{type(error).__name__}: {lines[0][:300]}"
            metrics = metrics_for(session.setting.dataset.task)
            failed = [*metrics, "parameter_change", "forget_seconds"]
            return [Row(metric, "", 0, None, "1", reason) for metric in failed]
        costs = [] if name == "identity" else _cost_rows(done)
        _keep(session.store, piece, judged, costs)
    return _load(session, piece, where)


def _keep(store: Store, piece: str, judged: Judged, extra: list[Row]) -> None:
    store.save(piece, judged.losses, {"rows": [*judged.rows, *extra]})


def _load(session: Session, piece: str, where: str | None = None) -> list[Row]:
    """Rows of a piece; with ``where`` its losses are stacked over seeds there."""
    found = session.store.load(piece)
    if where is not None:
        for part, values in found.arrays.items():
            session.losses.setdefault(f"losses/{where}/{part}", []).append(values)
    return [Row(*row) for row in found.data["rows"]]


def _records(
    blank: Record, rows: list[Row], oracle: dict[tuple[Any, ...], float | None]
) -> list[Record]:
    return [
        blank._replace(
            metric=row.metric,
            split=row.split,
            evaluate_seed=row.evaluate_seed,
            value=row.value,
            oracle=oracle.get((row.metric, row.split, row.evaluate_seed)),
            unit=row.unit,
            failure=row.failure,
        )
        for row in rows
    ]


def _blank(session: Session, court: Court) -> Record:
    return Record(
        run=session.run,
        dataset=session.setting.dataset.title,
        model=session.setting.config.model.name,
        method="",
        request=court.asked.name,
        train_seed=0,
        unlearn_seed=0,
        evaluate_seed=0,
        metric="",
        split="",
        value=None,
        oracle=None,
        unit="",
    )


def _cost_rows(done: Forgotten) -> list[Row]:
    prepare = done.prepare
    compiled = done.forget.compile_seconds + (prepare.compile_seconds if prepare else 0)
    return [
        _cost_row("prepare_seconds", prepare.seconds if prepare else None, "s"),
        _cost_row("forget_seconds", done.forget.seconds, "s"),
        _cost_row("compile_seconds", compiled, "s"),
        _peak_row(done.forget, prepare),
    ]


def _peak_row(*costs: Cost | None) -> Row:
    known = [c.peak_bytes for c in costs if c is not None and c.peak_bytes is not None]
    return _cost_row("peak_bytes", float(max(known)) if known else None, "bytes")


def _training_rows(trained: Trained) -> list[Row]:
    peak = trained.peak_bytes
    return [
        _cost_row("prepare_seconds", None, "s"),
        _cost_row("forget_seconds", trained.seconds, "s"),
        _cost_row("compile_seconds", trained.compile_seconds, "s"),
        _cost_row("peak_bytes", None if peak is None else float(peak), "bytes"),
    ]


def _cost_row(metric: str, value: float | None, unit: str) -> Row:
    return Row(metric, "", 0, value, unit)
