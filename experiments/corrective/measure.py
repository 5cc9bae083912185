"""Manipulate, train, correct with a known part, and judge by the true labels."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.corrective.config import Config
from experiments.corrective.contestants import Contestant, contestant, search
from experiments.corrective.exposing import bench_of, exposed
from experiments.corrective.kinds import corrupted, judges
from experiments.frame.bench import Bench
from experiments.frame.ensembles import kept_models, training_words
from experiments.frame.price import priced
from experiments.frame.problem import problem, seed_key
from experiments.frame.study import data_digest
from unlearn_jax.data.batch import Dataset, bucket, pad
from unlearn_jax.data.corrupt import known_part
from unlearn_jax.ensembles.plan import Plan
from unlearn_jax.evaluation.cost import Compiled
from unlearn_jax.evaluation.outputs import check_finite
from unlearn_jax.methods import make_request
from unlearn_jax.methods.potion import label_agreement
from unlearn_jax.results.rows import Place, Row
from unlearn_jax.results.summary import ORIGINAL
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Variables


class Setting(NamedTuple):
    """Description: clean data, how models are trained, and who corrects them.

    Attributes:
        agree: ``(variables, data) ->`` share of the labels that are predicted.
        programs: Methods that are compiled, by name.
    """

    config: Config
    dataset: Dataset
    learner: Learner
    contestants: dict[str, Contestant]
    agree: Callable[[Variables, Batch], Any]
    programs: dict[Any, Compiled]


class Case(NamedTuple):
    """Description: a manipulated training set, and the model that learnt from it.

    Attributes:
        at: Kind and seed.
        bad: (s,) indices of the manipulated examples.
        train: All of them, on the device.
        judges: Test examples, see :func:`judges`.
        original: Trained on ``train``.
        known_by: What decides it.
    """

    at: dict[str, Place]
    bad: np.ndarray
    train: Batch
    judges: dict[str, Batch]
    original: Variables
    known_by: dict[str, Any]


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: an unknown or absent data set, model or method, or more bad examples
            than there are examples.
    """
    dataset, learner, _, _ = problem(config.data, config.model, config.recipe)
    if not 0 <= config.target < dataset.classes:
        raise ValueError(
            f"target is {config.target}; expected 0 to {dataset.classes - 1}"
        )
    for kind in config.kinds:
        corrupted(config, dataset, kind, 0)
    if config.clean:
        bench_of(config, dataset, 0)
    rule = {"most": config.strengths, "rho": config.rho}
    table = {
        name: contestant(learner, name, config.options, **rule)
        for name in config.methods
    }
    agree = jax.jit(functools.partial(label_agreement, learner))
    return Setting(config, dataset, learner, table, agree, {})


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Every kind, seed, method and share; numbers of the original go by share 0."""
    config = setting.config
    seeds = range(config.first, config.first + config.seeds)
    for kind, seed in itertools.product(config.kinds, seeds):
        case = _case(bench, setting, kind, seed)
        at = {**case.at, "method": ORIGINAL, "share": 0.0}
        yield from _accuracies(setting, case, case.original, at)
        if config.clean and kind == "backdoor":
            given = config, setting.learner, setting.dataset, case.original, case.at
            make = functools.partial(exposed, *given)
            words = {**_known_of(config, case), "clean": config.clean}
            yield from bench.rows("exposed", make, known_by=words)
        title = f"correct: {kind}, seed {seed}"
        with bench.progress(title, len(setting.contestants)) as advance:
            for name in setting.contestants:
                make = functools.partial(_curve, setting, case, name)
                failed = functools.partial(_failed, {**case.at, "method": name})
                words = _known(setting, case, name)
                place = f"corrected/{name}"
                yield from bench.rows(place, make, failed=failed, known_by=words)
                advance(1)


def _case(bench: Bench, setting: Setting, kind: str, seed: int) -> Case:
    config, dataset = setting.config, setting.dataset
    bad = corrupted(config, dataset, kind, seed)
    train = jax.tree.map(jnp.asarray, bad.data)
    splits = dataset.splits._replace(train=bad.data)
    on = data_digest(dataset._replace(splits=splits))
    known_by = {**training_words(config), "on": on}
    key = np.asarray(jax.random.key_data(seed_key("train", seed)))
    (original,) = kept_models(
        bench,
        setting.learner,
        train,
        dataset.splits.test.inputs[:1],
        Plan(key[None], np.asarray(train.weights)[None]),
        name=f"train the original: {kind}, seed {seed}",
        known_by=known_by,
        members="loop",
    )
    at, judged = {"kind": kind, "seed": seed}, judges(config, dataset, kind)
    return Case(at, bad.indices, train, judged, original, known_by)


def _known(setting: Setting, case: Case, name: str) -> dict[str, Any]:
    """All that one method's numbers depend on."""
    config = setting.config
    return {
        **_known_of(config, case),
        "options": config.options.of(name),
        "strengths": tuple(setting.contestants[name]),
    }


def _known_of(config: Config, case: Case) -> dict[str, Any]:
    """All that any number of a case depends on."""
    words = ("patch", "classes", "backdoor", "confusion", "shares", "rho", "keep")
    return {
        **case.known_by,
        **case.at,
        **{word: getattr(config, word) for word in words},
    }


def _curve(setting: Setting, case: Case, name: str) -> Iterator[Row]:
    """One method over all shares of the bad examples."""
    config, methods = setting.config, setting.contestants[name]
    seed = int(case.at["seed"])

    def timed(what: Any, *call: Any) -> tuple[Any, float]:
        given = setting.learner, case.train, *call
        result, cost = priced(*given, programs=setting.programs, name=(name, what))
        return result, cost.seconds

    prepare, key = next(iter(methods.values())).prepare, seed_key("prepare", seed)
    state, _ = timed("prepare", prepare, key, case.original, case.train)
    size = bucket(max(config.backdoor, config.confusion))
    for share in config.shares:
        request = make_request(case.train, known_part(case.bad, share, seed=seed))
        request = request._replace(forget=pad(request.forget, size))
        given = seed_key("unlearn", seed), state, case.original, request

        def attempt(strength: Any, given: Any = given) -> tuple[Variables, float]:
            (variables, _), spent = timed(strength, methods[strength].forget, *given)
            return variables, spent

        def agreements(at: Variables, request: Any = request) -> tuple[float, float]:
            forget, retain = (setting.agree(at, part) for part in request)
            return float(forget), float(retain)

        known, others = agreements(case.original)
        rule = {"goal": config.rho * known, "least": config.keep * others}
        found, strength, left, spent = search(
            tuple(methods), attempt, agreements, **rule
        )
        check_finite("parameters", *jax.tree.leaves(found))
        at = {**case.at, "method": name, "share": share}
        yield from _accuracies(setting, case, found, at)
        yield Row("seconds", spent, "s", at)
        yield Row("agreement", 100 * left, "%", at)
        if strength is not None:
            yield Row("strength", strength, at=at)


def _accuracies(
    setting: Setting, case: Case, variables: Variables, at: dict[str, Place]
) -> Iterator[Row]:
    """Against true labels, where the manipulation shows and elsewhere."""
    for split, data in case.judges.items():
        share = float(setting.agree(variables, data))
        yield Row("accuracy", 100 * share, "%", {**at, "split": split})


def _failed(at: dict[str, Place], reason: str) -> list[Row]:
    return [Row("accuracy", None, "%", at, reason)]
