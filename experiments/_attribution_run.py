"""Train the evidence and the truth, ask every attribution, take supporters out."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._attribution_setting import Competitor, Setting
from experiments._kept import kept_ensemble, stream_keys
from experiments.frame.progress import progress
from unlearn_jax import tree
from unlearn_jax.attribution.attribution import Ensemble as Subsets
from unlearn_jax.attribution.attribution import Evidence, Trajectory
from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.data.subsets import subset_masks
from unlearn_jax.ensembles.read import Ensemble
from unlearn_jax.evaluation.cost import measured
from unlearn_jax.evaluation.counterfactual import (
    Counterfactual,
    Flips,
    compare,
    flips,
    predicted_changes,
    random_removals,
    top_supporters,
    weights_without,
)
from unlearn_jax.storage.store import Store
from unlearn_jax.train.fit import choose_fit_loop
from unlearn_jax.train.trajectory import fit_trajectory

EVERYTHING, SUBSETS, TRUTH, REMOVALS = range(4)
"""Streams of keys; the first two are those of ``experiments.dmm``."""

RANDOM = "random"


class Known(NamedTuple):
    """Description: what attributions read.

    Attributes:
        evidence: Of all models and members.
        before: (m, q, k) outputs of the queries by the models of all examples.
        model_seconds: Of training one of them.
        member_seconds: Of training one model of a subset.
    """

    evidence: Evidence
    before: np.ndarray
    model_seconds: float
    member_seconds: float


class Truth(NamedTuple):
    """Value: what retraining gave.

    Attributes:
        masks: (s, n) training weights.
        runs: (r, q, s) margins of the queries.
    """

    masks: np.ndarray
    runs: np.ndarray


class Answer(NamedTuple):
    """Value: one attribution from so many models or members.

    Attributes:
        effects: (q, n).
        prepare_seconds: Once.
        effects_seconds: For all queries.
        compile_seconds: Of both.
        failure: Why there is no answer.
    """

    effects: np.ndarray
    prepare_seconds: float = 0.0
    effects_seconds: float = 0.0
    compile_seconds: float = 0.0
    failure: str = ""


class Removal(NamedTuple):
    """Value: what taking supporters out did."""

    outcome: Counterfactual
    labels: Flips | None


def train_evidence(setting: Setting) -> Known:
    """Models of all examples with their way, and models of subsets where needed."""
    config, learner, train = setting.config, setting.learner, setting.train
    keys = stream_keys(config.seed, EVERYTHING, config.models)

    def run(key: Any, data: Any) -> Any:
        return fit_trajectory(key, learner, data, points=config.checkpoints)

    if choose_fit_loop(learner, train) != "host":
        run = jax.jit(run).lower(keys[0], train).compile()
    start, found = time.perf_counter(), []
    with progress("models of all examples", len(keys)) as advance:
        for key in keys:
            found.append(jax.block_until_ready(run(key, train)))
            advance(1)
    seconds = (time.perf_counter() - start) / len(keys)
    models = tree.stack([model for model, _ in found])
    checkpoints = tree.stack([pieces[0] for _, pieces in found])
    _, rates, steps = found[0][1]
    trajectory = Trajectory(checkpoints, rates, steps)
    ensemble, member_seconds = _train_members(setting)
    evidence = Evidence(models, keys, trajectory, ensemble)
    apply = jax.jit(learner.model.apply)
    before = np.stack(
        [np.asarray(apply(model, setting.queries.inputs)) for model, _ in found]
    )
    return Known(evidence, before, seconds, member_seconds)


def train_truth(setting: Setting) -> Truth:
    """Margins of models retrained on subsets that no attribution has seen."""
    config, n = setting.config, len(setting.train.targets)
    masks = subset_masks(config.seed + 1, config.subsets, n, config.share)
    rows = np.tile(masks, (config.retrainings, 1))
    name = f"truth of {config.subsets} subsets"
    ensemble = _kept(setting, name, rows, TRUTH)
    margins = _margins(setting, ensemble.outputs(points=setting.asked))
    shape = (config.retrainings, config.subsets, config.queries)
    return Truth(masks, margins.reshape(shape).swapaxes(1, 2))


def ask_all(
    store: Store, setting: Setting, known: Known
) -> dict[tuple[str, int], Answer]:
    """Effects of every competitor at every count, kept in the store."""
    found = {}
    jobs = [(one, count) for one in setting.competitors for count in one.counts]
    with progress("attribute", len(jobs)) as advance:
        for competitor, count in jobs:
            piece = f"{competitor.label}/{count}"
            if not store.has(piece):
                answer = ask(setting, known, competitor, count)
                numbers = answer._asdict()
                store.save(piece, {"effects": numbers.pop("effects")}, numbers)
            kept = store.load(piece)
            found[competitor.label, count] = Answer(kept.arrays["effects"], **kept.data)
            advance(1)
    return found


def ask(setting: Setting, known: Known, competitor: Competitor, count: int) -> Answer:
    """Effects of one competitor from its first ``count`` models or members."""
    made, train = competitor.made, setting.train
    evidence = first_of(known.evidence, competitor, count)
    queries = jax.tree.map(lambda x: x[: competitor.queries], setting.queries)
    key = jax.random.key(setting.config.seed)
    try:
        state, first = measured(made.prepare, key, evidence, train)
        effects, second = measured(
            lambda s, d, q: made.effects(s, d, q, margin), state, train, queries
        )
    except ValueError as error:
        nothing = np.zeros((0, len(train.targets)))
        return Answer(nothing, failure=str(error))
    effects = np.asarray(effects, np.float64)
    failure = "" if np.all(np.isfinite(effects)) else "effects are not finite"
    compiled = first.compile_seconds + second.compile_seconds
    return Answer(effects, first.seconds, second.seconds, compiled, failure)


def first_of(evidence: Evidence, competitor: Competitor, count: int) -> Evidence:
    """The part of the evidence that a competitor is asked with."""
    if competitor.from_members:
        assert evidence.ensemble is not None
        part = jax.tree.map(lambda x: x[:count], evidence.ensemble)
        one = jax.tree.map(lambda x: x[:1], evidence.models)
        return Evidence(one, ensemble=part)
    assert evidence.trajectory is not None
    models, checkpoints = jax.tree.map(
        lambda x: x[:count], (evidence.models, evidence.trajectory.checkpoints)
    )
    way = evidence.trajectory._replace(checkpoints=checkpoints)
    return Evidence(models, evidence.keys[:count], way)


def remove_supporters(
    setting: Setting, known: Known, answers: dict[tuple[str, int], Answer]
) -> dict[str, Removal]:
    """Retrain without the supporters that each of ``removals`` names.

    And without random examples, the control.
    """
    config = setting.config
    count = config.removal_queries
    if not count:
        return {}
    ones = np.ones(len(setting.train.targets))
    chosen, predicted = {}, {}
    for one in setting.competitors:
        if one.label not in config.removals or not one.counts:
            continue
        answer = answers[one.label, one.counts[-1]]
        effects = answer.effects[:count]
        if answer.failure or len(effects) < count:
            continue
        chosen[one.label] = top_supporters(effects, config.removed)
        predicted[one.label] = predicted_changes(effects, chosen[one.label])
        if RANDOM not in chosen:
            drawn = random_removals(count, config.removed, ones, seed=config.seed)
            chosen[RANDOM] = drawn
            predicted[RANDOM] = predicted_changes(effects, drawn)
    if not chosen:
        return {}
    blocks = [weights_without(each, ones) for each in chosen.values()]
    weights = np.concatenate(blocks).astype(np.uint8)
    rows = np.tile(weights, (config.removal_retrainings, 1))
    ensemble = _kept(setting, "without supporters", rows, REMOVALS, grows=False)
    outputs = ensemble.outputs(points=setting.asked[:count])
    outputs = outputs.reshape(-1, len(chosen), count, *outputs.shape[1:])
    before = known.before[:, :count]
    found = {}
    for place, name in enumerate(chosen):
        # Models without the supporters of query q, at query q.
        after = np.einsum("rqqk->rqk", outputs[:, place])
        found[name] = Removal(
            compare(
                predicted[name], _margins(setting, before), _margins(setting, after)
            ),
            _flips(setting, before, after),
        )
    return found


def _train_members(setting: Setting) -> tuple[Subsets | None, float]:
    config = setting.config
    if not any(one.from_members for one in setting.competitors):
        return None, 0.0
    n = len(setting.train.targets)
    masks = subset_masks(config.seed, config.members, n, config.share)
    # One point only, as in experiments.dmm: the same members serve both.
    trained = _kept(setting, "subsets", masks, SUBSETS, points=1)
    weights = jnp.asarray(masks, setting.train.weights.dtype)
    subsets = Subsets(weights, trained.models())
    return subsets, trained.seconds / trained.count


def _flips(setting: Setting, before: np.ndarray, after: np.ndarray) -> Flips | None:
    """None where no query was classified rightly before."""
    targets = setting.queries.targets[: before.shape[1]]
    targets = np.asarray(targets)[None]
    rightly = [side.argmax(axis=-1) == targets for side in (before, after)]
    try:
        return flips(*rightly)
    except ValueError:
        return None


def _margins(setting: Setting, outputs: np.ndarray) -> np.ndarray:
    """(m, q) margins of the first q queries."""
    targets = setting.queries.targets[: outputs.shape[1]]
    found = jax.vmap(margin, (0, None))(jnp.asarray(outputs), targets)
    return np.asarray(found, np.float64)


def _kept(
    setting: Setting,
    name: str,
    weights: np.ndarray,
    stream: int,
    *,
    points: int | None = None,
    grows: bool = True,
) -> Ensemble:
    inputs = setting.test.inputs[:points]
    given = setting.config, setting.learner, setting.train, inputs
    return kept_ensemble(*given, name, weights, stream, grows=grows)
