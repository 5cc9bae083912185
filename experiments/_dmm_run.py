"""Train the ensembles, unlearn every original with everybody, keep the margins."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._dmm_contenders import (
    ORACLE_MATCHING,
    Contender,
    attribution_state,
    contenders,
)
from experiments._dmm_setting import Points, Setting, forget_set, points_of
from experiments._kept import kept_ensemble
from experiments.frame.progress import progress
from unlearn_jax import tree
from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.attribution.attribution import Ensemble as Subsets
from unlearn_jax.attribution.attribution import Evidence
from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.data.subsets import subset_masks
from unlearn_jax.ensembles.read import Ensemble
from unlearn_jax.methods import Request, make_request
from unlearn_jax.storage.store import Store
from unlearn_jax.types import Array, Variables

ORIGINAL, ORACLE, CONTROL = "original", "oracle", "oracle vs oracle"


class Asked(NamedTuple):
    """Description: one forget set with its oracles.

    Attributes:
        name: As on the command line.
        forget: Indices of the forgotten training examples.
        request: Padded batches.
        points: What is judged.
        oracles: Twice as many as originals: the first half is what everybody is
            compared with, the second half the control, and what oracle matching sees.
    """

    name: str
    forget: np.ndarray
    request: Request
    points: Points
    oracles: Ensemble


class Judged(NamedTuple):
    """Value: one contender on one request.

    Attributes:
        margins: (originals, points).
        seconds: Median of one request.
    """

    margins: np.ndarray
    seconds: float


class Trained(NamedTuple):
    """Description: what was trained once."""

    originals: Ensemble
    subsets: Ensemble | None
    masks: np.ndarray | None
    asked: list[Asked]


def train_all(setting: Setting) -> Trained:
    """Originals, oracles and subsets, or what is left of them to train."""
    config, n = setting.config, len(setting.train.targets)
    ones = np.ones((config.originals, n), np.uint8)
    originals = _ensemble(setting, "originals", ones, 0)
    first = tree.member(originals.models(slice(0, 1)), 0)
    asked = []
    for number, text in enumerate(config.requests):
        forget = forget_set(setting, first, text)
        weights = np.ones((2 * config.originals, n), np.uint8)
        weights[:, forget] = 0
        oracles = _ensemble(setting, f"oracles {text}", weights, 2 + number)
        request = make_request(setting.train, forget)
        points = points_of(setting, forget)
        asked.append(Asked(text, forget, request, points, oracles))
    reads = [ATTRIBUTIONS[name].reads for name in config.attributions]
    if not any("ensemble" in fields for fields in reads):
        return Trained(originals, None, None, asked)
    masks = subset_masks(config.seed, config.members, n, config.share)
    subsets = _ensemble(setting, "subsets", masks, 1)
    return Trained(originals, subsets, masks, asked)


def judge_all(
    store: Store, setting: Setting, trained: Trained
) -> tuple[dict[tuple[str, str, str], Judged], dict[str, float]]:
    """Margins of everybody by request, family and setting; seconds of attributions."""
    config = setting.config
    originals = _members(trained.originals.models(slice(0, config.originals)))
    found: dict[tuple[str, str, str], Judged] = {}
    for asked in trained.asked:
        oracles = _members(asked.oracles.models())
        kinds = {
            ORIGINAL: originals,
            ORACLE: oracles[: config.originals],
            CONTROL: oracles[config.originals :],
        }
        for name, models in kinds.items():
            judged = _plain(setting, asked, models)
            found[asked.name, name, ""] = Judged(judged, asked.oracles.seconds)
    shared = _States(setting, trained)
    every = contenders(setting)
    with progress("unlearn", len(every) * len(trained.asked)) as advance:
        for contender in every:
            for asked in trained.asked:
                key = (asked.name, contender.family, contender.setting)
                piece = "/".join(key)
                if not store.has(piece):
                    judged = _unlearn(setting, shared, contender, asked, originals)
                    store.save(
                        piece,
                        {"margins": judged.margins},
                        {"seconds": judged.seconds},
                    )
                kept = store.load(piece)
                found[key] = Judged(kept.arrays["margins"], kept.data["seconds"])
                advance(1)
    return found, shared.seconds


class _States:
    """What is known before a request, made when first asked for."""

    def __init__(self, setting: Setting, trained: Trained):
        self._setting, self._trained = setting, trained
        self._made: dict[str, Any] = {}
        self._latest: tuple[str, str] | None = None
        self._owned: dict[int, Any] = {}
        self._program: Callable[..., Any] = lambda *_: None
        self.seconds: dict[str, float] = {}

    def of(self, contender: Contender, asked: Asked, i: int) -> Any:
        if contender.family == ORACLE_MATCHING:
            member = self._setting.config.originals + i
            return tree.member(asked.oracles.models(slice(member, member + 1)), 0)
        if contender.prepare is not None:
            return self._own(contender, i)
        name = contender.family.split(": ")[1]
        if name not in self._made:
            start = time.perf_counter()
            self._made[name] = jax.block_until_ready(self._prepare(name))
            self.seconds[name] = time.perf_counter() - start
        return self._made[name]

    def _own(self, contender: Contender, i: int) -> Any:
        """The state of one original, the same for every request."""
        who = (contender.family, contender.setting)
        if who != self._latest:
            self._latest, self._owned = who, {}
            self._program = jax.jit(contender.prepare or (lambda *_: ()))
        if i not in self._owned:
            stacked = self._trained.originals.models(slice(i, i + 1))
            key = jax.random.fold_in(jax.random.key(self._setting.config.seed + 2), i)
            original = tree.member(stacked, 0)
            made = self._program(key, original, self._setting.train)
            self._owned[i] = jax.block_until_ready(made)
        return self._owned[i]

    def _prepare(self, name: str) -> Any:
        setting, trained = self._setting, self._trained
        ensemble = None
        if "ensemble" in ATTRIBUTIONS[name].reads:
            assert trained.subsets is not None
            masks = jnp.asarray(trained.masks, setting.train.weights.dtype)
            ensemble = Subsets(masks, trained.subsets.models(slice(0, len(masks))))
        models = trained.originals.models(slice(0, setting.config.models))
        evidence = Evidence(models, ensemble=ensemble)
        key = jax.random.key(setting.config.seed)
        return attribution_state(setting, name, evidence, key)


def _unlearn(
    setting: Setting,
    shared: _States,
    contender: Contender,
    asked: Asked,
    originals: list[Variables],
) -> Judged:
    """Unlearn every original, one after the other, as a user would."""
    margins, seconds = [], []
    program: Any = None
    for i, original in enumerate(originals):
        key = jax.random.fold_in(jax.random.key(setting.config.seed + 1), i)
        state = shared.of(contender, asked, i)
        arguments: tuple[Any, ...] = (key, state, original, asked.request)
        work: Any = contender.forget
        if work is None:
            work = contender.predict
            arguments = (state, original, asked.request, asked.points.batch)
        if program is None:
            program = jax.jit(work).lower(*arguments).compile()
        start = time.perf_counter()
        result = jax.block_until_ready(program(*arguments))
        seconds.append(time.perf_counter() - start)
        outputs = result if contender.forget is None else _apply(setting)(result, asked)
        margins.append(np.asarray(_margins(outputs, asked.points.batch.targets)))
    return Judged(np.stack(margins), float(np.median(seconds)))


def _plain(setting: Setting, asked: Asked, models: list[Variables]) -> np.ndarray:
    apply, targets = _apply(setting), asked.points.batch.targets
    return np.stack(
        [np.asarray(_margins(apply(model, asked), targets)) for model in models]
    )


def _apply(setting: Setting) -> Callable[[Variables, Asked], Array]:
    run = jax.jit(setting.learner.model.apply)
    return lambda variables, asked: run(variables, asked.points.batch.inputs)


_margins = jax.jit(margin)


def _members(stacked: Variables) -> list[Variables]:
    count = tree.leading_axis(stacked)
    return [tree.member(stacked, i) for i in range(count)]


def _ensemble(
    setting: Setting, name: str, weights: np.ndarray, stream: int
) -> Ensemble:
    """Train or read one ensemble."""
    return kept_ensemble(
        setting.config,
        setting.learner,
        setting.train,
        setting.test.inputs[:1],
        name,
        weights,
        stream,
    )
