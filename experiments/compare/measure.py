"""The steps of a comparison: originals, oracles, forget, judge."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from experiments.compare.contenders import Contender
from experiments.compare.court import Court, Judged
from experiments.compare.forget import Forgetter, Forgotten
from experiments.compare.judge import judge, row
from experiments.compare.models import (
    oracles,
    original_words,
    originals,
    request_words,
    training_cost,
)
from experiments.compare.setting import Setting, case_of
from experiments.frame.bench import Bench, piece_of, reason_of, rows_of
from experiments.frame.ensembles import training_words
from experiments.frame.plugins import brought_digest
from experiments.frame.requests import trained_features
from unlearn_jax.evaluation.cost import Cost
from unlearn_jax.results.rows import Row
from unlearn_jax.results.summary import FLOOR, ORACLE, ORIGINAL
from unlearn_jax.solvers.solution import DIRECT, Report, acceptable
from unlearn_jax.storage.names import file_name
from unlearn_jax.storage.piece import Piece
from unlearn_jax.train.exchange import SUFFIXES, write_variables

ROW_NAMES = {"identity": ORIGINAL, "retrain": ORACLE}
"""Methods whose row in the tables has a name of its own."""

Losses = dict[str, list[np.ndarray]]
_LEAF = "model/"
"""How the arrays of an unlearned model are called in its piece, by their number."""


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Every number, request by request; losses for the histograms are published."""
    trained = originals(bench, setting)
    features = functools.lru_cache(
        functools.partial(trained_features, setting.learner, setting.train, trained[0])
    )
    judged = judge(setting)
    courts = []
    for asked in setting.asked:
        case = case_of(setting, asked, features)
        own = oracles(bench, setting, case)
        courts.append(Court(setting, case, judged, trained, own))
    traces = bench.place("traces", training_words(setting.config))
    forgetter = Forgetter(setting, trained, traces)
    losses: Losses = {}
    found: dict[str, list[Row]] = {court.case.name: [] for court in courts}
    for court in courts:
        found[court.case.name] += _references(bench, setting, court, losses)
    for contender in _competing(setting):
        name = ROW_NAMES.get(contender.name, contender.name)
        seeds = setting.config.seeds
        cells = list(
            itertools.product(range(seeds.train), courts, range(seeds.unlearn))
        )
        with bench.progress(f"forget and judge: {name}", len(cells)) as advance:
            for i, court, j in cells:
                make = functools.partial(
                    _unlearned, forgetter, court, contender, i, j, setting
                )
                words = {
                    "options": contender.options,
                    "brought": brought_digest(contender.method),
                    **original_words(setting, i),
                    **({} if setting.config.save == "none" else {"saved": True}),
                }
                # By its method, not by its row: a sweep finds what was there.
                what = contender.method
                piece = cell(bench, setting, court, what, (i, j), make, words)
                _collect(losses, f"{court.case.name}/{name}", piece)
                _save(bench, setting, piece, court.case.name, f"{name} {i}-{j}")
                found[court.case.name] += placed(
                    rows_of(piece), court, name, train_seed=i, unlearn_seed=j
                )
                advance(1)
    for name, values in losses.items():
        bench.publish(name, np.stack(values))
    yield from itertools.chain(*found.values())


def _competing(setting: Setting) -> list[Contender]:
    """The original first; "retrain" has its row already."""
    control = Contender("identity", "identity", setting.identity, {})
    others = [c for c in setting.contenders if c.method not in ROW_NAMES]
    return [control, *others]


def _references(
    bench: Bench, setting: Setting, court: Court, losses: Losses
) -> Iterator[Row]:
    """The rows of the oracle and of oracle against oracle."""
    config, case = setting.config, court.case
    yield from floor_rows(bench, setting, court)
    cost = Cost(**training_cost(bench, setting, case))
    metrics = setting.metrics.items()
    closeness = {name for name, m in metrics if m.direction in ("up", "down")}
    for i in range(config.seeds.train):
        make = functools.partial(_oracle, court, i)
        piece = cell(bench, setting, court, ORACLE, (i, 0), make)
        _collect(losses, f"{case.name}/{ORACLE}", piece)
        rows = [one for one in rows_of(piece) if one.metric not in closeness]
        rows += cost_rows(cost, None)
        yield from placed(rows, court, ORACLE, train_seed=i, unlearn_seed=0)


def floor_rows(bench: Bench, setting: Setting, court: Court) -> Iterator[Row]:
    """The rows of oracle against oracle."""
    count = setting.config.oracles
    with bench.progress(f"judge oracles, {court.case.name}", count) as advance:
        for i in range(count):
            make = functools.partial(_pair, court, i)
            piece = cell(bench, setting, court, FLOOR, (i, 0), make)
            seeds = {"train_seed": i, "unlearn_seed": piece.data["j"]}
            for side in ("first", "second"):
                told = Piece({}, {"rows": piece.data[side]})
                yield from placed(rows_of(told), court, FLOOR, **seeds, side=side)
            advance(1)


def cell(
    bench: Bench,
    setting: Setting,
    court: Court,
    name: str,
    seeds: tuple[int, int],
    make: Callable[[], Piece],
    words: Mapping[str, Any] | None = None,
) -> Piece:
    """One judged model, found again by every run that asks for the same one."""
    config = setting.config
    decides = {
        **training_words(setting.config),
        **request_words(court.case),
        "seeds": [config.seeds.first, config.seeds.evaluate, *seeds],
        "oracles": config.oracles,
        "metrics": court.metrics,
        **{name: brought_digest(name) for name in config.metrics},
        "relearn_steps": config.relearn_steps,
        **(words or {}),
    }
    try:
        return bench.keep(f"judged/{name}", make, known_by=decides)
    except Exception as error:
        # A method may fail in any way; the comparison goes on and says so.
        metrics = court.metrics or setting.metrics
        failed = [*metrics, "parameter_change", "forget_seconds"]
        return piece_of(row(m, None, failure=reason_of(error)) for m in failed)


def _unlearned(
    forgetter: Forgetter,
    court: Court,
    contender: Contender,
    i: int,
    j: int,
    setting: Setting,
) -> Piece:
    done = forgetter(contender, i, j, court.case)
    judged = court.unlearned(done.variables, i, j)
    costs = [] if contender.method == "identity" else _method_costs(done)
    arrays = dict(judged.losses)
    if setting.config.save != "none":
        leaves = jax.tree.leaves(done.variables)
        arrays |= {f"{_LEAF}{n}": np.asarray(leaf) for n, leaf in enumerate(leaves)}
    return piece_of([*judged.rows, *costs], arrays)


def _save(
    bench: Bench, setting: Setting, piece: Piece, request: str, name: str
) -> None:
    """Write the unlearned model of a piece, if that was asked for and it has one."""
    kind = setting.config.save
    like = jax.eval_shape(setting.learner.model.init, jax.random.key(0))
    leaves, structure = jax.tree.flatten(like)
    names = [f"{_LEAF}{n}" for n in range(len(leaves))]
    if kind == "none" or not bench.first or not set(names) <= set(piece.arrays):
        return
    variables = jax.tree.unflatten(structure, [piece.arrays[n] for n in names])
    folder = bench.folder / "models" / file_name(request)
    write_variables(folder / f"{file_name(name)}{SUFFIXES[kind]}", variables)


def _oracle(court: Court, i: int) -> Piece:
    judged: Judged = court.oracle(i)
    return piece_of(judged.rows, judged.losses)


def _pair(court: Court, i: int) -> Piece:
    j, first, second = court.pair(i)
    told = {
        k: piece_of(rows).data["rows"]
        for k, rows in {"first": first, "second": second}.items()
    }
    return Piece({}, {"j": j, **told})


def placed(rows: Iterable[Row], court: Court, name: str, **at: Any) -> list[Row]:
    """Rows of one model with their place in the comparison."""
    where = {"request": court.case.name, "method": name, **at}
    return [one._replace(at={**where, **one.at}) for one in rows]


def _collect(losses: Losses, where: str, piece: Piece) -> None:
    for part, values in piece.arrays.items():
        if part.startswith(_LEAF):
            continue
        losses.setdefault(f"losses/{where}/{part}", []).append(values)


def _method_costs(done: Forgotten) -> list[Row]:
    return cost_rows(done.forget, done.prepare) + report_rows(done.report)


def report_rows(report: Report | None) -> list[Row]:
    """How a solver ended; no row where none ran, no steps where it was direct.

    ``solver_failure`` is 0 where the solve is acceptable, else an index into
    ``solvers.solution.REASONS``.
    """
    if report is None:
        return []
    failure = 0.0 if bool(acceptable(report)) else float(report.code)
    iterated = int(report.code) != DIRECT
    return [
        row("solver_failure", failure),
        row("solver_steps", float(report.steps) if iterated else None, "steps"),
        row("solver_residual", float(report.residual) if iterated else None),
    ]


def cost_rows(forget: Cost, prepare: Cost | None) -> list[Row]:
    """What one request costs, and what was done before; None where nothing was."""
    compiled = forget.compile_seconds + (prepare.compile_seconds if prepare else 0)
    peaks = [cost.peak_bytes for cost in (forget, prepare) if cost is not None]
    known_peaks = [peak for peak in peaks if peak is not None]
    return [
        row("prepare_seconds", prepare.seconds if prepare else None, "s"),
        row("forget_seconds", forget.seconds, "s"),
        row("prepare_cpu_seconds", prepare.cpu_seconds if prepare else None, "s"),
        row("forget_cpu_seconds", forget.cpu_seconds, "s"),
        row("compile_seconds", compiled, "s"),
        row("peak_bytes", float(max(known_peaks)) if known_peaks else None, "bytes"),
    ]
