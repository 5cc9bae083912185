"""Ask every attribution, and hold what it says against the truth."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from experiments.attribution_fidelity.evidence import (
    Truth,
    train_evidence,
    train_truth,
)
from experiments.attribution_fidelity.removals import remove_supporters
from experiments.attribution_fidelity.setting import Setting
from experiments.attribution_fidelity.variant import Variant
from experiments.frame.bench import Bench, reason_of
from unlearn_jax.attribution.attribution import Evidence
from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.evaluation.cost import measured
from unlearn_jax.evaluation.datamodelling_score import (
    attainable,
    correlations,
    group_effects,
    linear_datamodelling_score,
    score,
)
from unlearn_jax.results.rows import Row
from unlearn_jax.solvers.solution import acceptable, no_report
from unlearn_jax.storage.piece import Piece

ATTAINABLE = "attainable"


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Evidence, truth, effects and their scores, removals."""
    config, jobs = setting.config, setting.config.jobs()
    known = train_evidence(bench, setting)
    truth = train_truth(bench, setting)
    ceiling = attainable(truth.runs, bootstrap=config.bootstrap, seed=config.seed)
    yield Row("lds", ceiling.value, "1", {"attribution": ATTAINABLE})
    yield Row("lds_stderr", ceiling.stderr, "1", {"attribution": ATTAINABLE})
    for unit, seconds in known.seconds.items():
        yield Row("train_seconds", seconds, "s", {"of": unit})
    best, largest = {}, {}
    with bench.progress("attribute", len(jobs)) as advance:
        for one, count in jobs:
            at = {"attribution": one.label, "count": count}
            make = functools.partial(ask, setting, known.evidence, one, count)
            try:
                answer = bench.keep(f"{one.label}/{count}", make)
            except Exception as error:
                # An attribution may fail in any way; the others go on.
                yield Row("lds", None, "1", at, reason_of(error))
                continue
            finally:
                advance(1)
            effects = largest[one] = answer.arrays["effects"]
            rows = list(scores(setting, truth, effects, at))
            yield from rows
            yield Row("evidence_seconds", count * known.seconds[one.unit], "s", at)
            for name, seconds in answer.data["seconds"].items():
                yield Row(f"{name}_seconds", seconds, "s", at)
            if answer.data["solver"]:
                yield Row("solver_failure", float(answer.data["solver"]), "1", at)
            if rows[0].value is not None:
                best[rows[0].value] = one.label, count, effects
    if best:
        label, count, effects = best[max(best)]
        bench.publish(f"example/{label}/{count}", example(truth, effects))
    chosen = {x.label: found for x, found in largest.items() if x in config.removals}
    yield from remove_supporters(bench, setting, known.before, chosen)


def ask(setting: Setting, evidence: Evidence, variant: Variant, count: int) -> Piece:
    """(q, n) effects by one attribution from its first ``count`` models or members.

    Raises:
        ValueError: it refuses, or gives effects that are not finite.
    """
    config, made = setting.config, setting.made[variant.label]
    train = setting.problem.train
    asked = config.queries_of(variant)
    queries = jax.tree.map(lambda x: x[:asked], setting.queries)
    part = first_of(evidence, variant.unit, count)
    state, first = measured(made.prepare, jax.random.key(config.seed), part, train)
    told = made.effects_reported or (lambda *given: (made.effects(*given), no_report()))
    (effects, solver), second = measured(
        lambda s, d, q: told(s, d, q, margin), state, train, queries
    )
    effects = np.asarray(effects, np.float64)
    if not np.all(np.isfinite(effects)):
        raise ValueError("effects are not finite")
    seconds = {
        "prepare": first.seconds,
        "effects": second.seconds,
        "compile": first.compile_seconds + second.compile_seconds,
    }
    failed = 0 if bool(acceptable(solver)) else int(solver.code)
    return Piece({"effects": effects}, {"seconds": seconds, "solver": failed})


def first_of(evidence: Evidence, unit: str, count: int) -> Evidence:
    """The part of the evidence that an attribution is asked with."""
    models, keys, trajectory, ensemble = evidence
    if unit == "members":
        part = jax.tree.map(lambda x: x[:count], ensemble)
        return Evidence(jax.tree.map(lambda x: x[:1], models), ensemble=part)
    assert trajectory is not None
    models, checkpoints = jax.tree.map(
        lambda x: x[:count], (models, trajectory.checkpoints)
    )
    return Evidence(models, keys[:count], trajectory._replace(checkpoints=checkpoints))


def scores(
    setting: Setting, truth: Truth, effects: np.ndarray, at: dict[str, Any]
) -> Iterator[Row]:
    """How well (q, n) effects order the margins of retrained models; LDS first."""
    drawn = {"bootstrap": setting.config.bootstrap, "seed": setting.config.seed}
    predicted = group_effects(effects, truth.masks)
    true = truth.means[: len(predicted)]
    try:
        lds = linear_datamodelling_score(predicted, true, **drawn)
        pearson = score(predicted, true, ranks=False, **drawn)
    except ValueError:  # they say nothing about any query
        yield Row("lds", None, "1", at, "effects without spread")
        return
    yield Row("lds", lds.value, "1", at)
    yield Row("lds_stderr", lds.stderr, "1", at)
    yield Row("pearson", pearson.value, "1", at)
    yield Row("pearson_stderr", pearson.stderr, "1", at)
    yield Row("slope", slope_of(predicted, true), "1", at)


def slope_of(predicted: np.ndarray, true: np.ndarray) -> float:
    """One line through all queries, each without its mean; NaN without spread.

    It is 1 for effects in the right units, if what is predicted is free of noise.
    """
    x, y = (side - side.mean(axis=1, keepdims=True) for side in (predicted, true))
    squares = float(np.sum(x**2))
    return float(np.sum(x * y)) / squares if squares > 0 else float("nan")


def example(truth: Truth, effects: np.ndarray) -> np.ndarray:
    """(2, s) predicted and true margin of the query of median correlation, centred."""
    predicted = group_effects(effects, truth.masks)
    true = truth.means[: len(predicted)]
    each = np.nan_to_num(correlations(predicted, true, ranks=True), nan=-1.0)
    query = int(np.argsort(each)[len(each) // 2])
    pair = np.stack([predicted[query], true[query]])
    return pair - pair.mean(axis=1, keepdims=True)
