"""What is trained once: originals, oracles of every forget set, models of subsets."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.dmm.setting import Setting
from experiments.frame.bench import Bench
from experiments.frame.ensembles import (
    EVERYTHING,
    SUBSETS,
    kept_ensemble,
    kept_models,
    stream_plan,
    subset_training,
    training_words,
)
from experiments.frame.requests import draw_request, trained_features
from unlearn_jax import tree
from unlearn_jax.attribution.attribution import Evidence, Subsets
from unlearn_jax.data.batch import concatenate, take
from unlearn_jax.methods import Request, make_request
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.types import Batch, Variables

ORACLES = SUBSETS + 1
"""Stream of keys of oracles."""


class Case(NamedTuple):
    """Value: one forget set with its oracles.

    Attributes:
        name: As on the command line.
        known_by: What decides the forget set and its oracles.
        sizes: Examples that are forgotten, and that stay.
        request: Padded batches.
        points: What is judged: forgotten, then retained, then test examples.
        split: (q,) "forget", "retain" or "validation" for each point.
        oracles: Twice as many as originals: the first half is what everybody is
            compared with, the second half the control, and what oracle matching sees.
    """

    name: str
    known_by: dict[str, Any]
    sizes: tuple[int, int]
    request: Request
    points: Batch
    split: np.ndarray
    oracles: list[Variables]


class Trained(NamedTuple):
    """Value: what was trained once; ``evidence`` is what attributions read."""

    originals: list[Variables]
    evidence: Evidence
    cases: list[Case]


def train_all(bench: Bench, setting: Setting) -> Trained:
    """Originals, oracles and subsets, or what is left of them to train."""
    config, (_, learner, train, _) = setting.config, setting.problem
    n = len(train.targets)
    ones = np.ones((config.originals, n), np.uint8)
    originals = _models(bench, setting, "originals", ones, EVERYTHING)
    features = functools.lru_cache(
        functools.partial(
            trained_features, learner, train, originals[0], seed=config.seed
        )
    )
    cases = []
    for asked in setting.asked:
        forget = draw_request(
            asked, setting.dataset, seed=config.seed, features=features
        )
        weights = np.ones((2 * config.originals, n), np.uint8)
        weights[:, forget] = 0
        # The same keys for every forget set, whatever is asked for beside it.
        oracles = _models(bench, setting, f"oracles {asked.text}", weights, ORACLES)
        digest = digest_arrays(b"", "forget", {"forget": forget}).hex()
        words = {"forget": digest, "seed": config.seed}
        sizes, request = (len(forget), n - len(forget)), make_request(train, forget)
        judged = points_of(setting, forget)
        cases.append(Case(asked.text, words, sizes, request, *judged, oracles))
    models = tree.stack(originals[: config.models])
    return Trained(
        originals, Evidence(models, ensemble=_subsets(bench, setting)), cases
    )


def points_of(setting: Setting, forget: np.ndarray) -> tuple[Batch, np.ndarray]:
    """The forget set, and a sample of the others, drawn once; and who is what."""
    config, (_, _, train, test) = setting.config, setting.problem
    random = np.random.default_rng(config.seed)
    kept = np.setdiff1d(np.arange(len(train.targets)), forget)
    retained = np.sort(random.permutation(kept)[: config.points])
    unseen = np.sort(random.permutation(len(test.targets))[: config.points])
    lost, held = (take(train, part) for part in (forget, retained))
    batch = concatenate(concatenate(lost, held), take(test, unseen))
    counts = [len(forget), len(retained), len(unseen)]
    return batch, np.repeat(["forget", "retain", "validation"], counts)


def _subsets(bench: Bench, setting: Setting) -> Subsets | None:
    """Models of random subsets, where an attribution reads them."""
    made, masks = setting.problem, setting.masks
    if masks is None:
        return None
    training = subset_training(made, setting.config.seed, masks)
    given = {"name": "train subsets", "known_by": training_words(setting.config)}
    trained = kept_ensemble(bench, *training, **given)
    return Subsets(jnp.asarray(masks, made.train.weights.dtype), trained.models())


def _models(
    bench: Bench, setting: Setting, name: str, weights: np.ndarray, stream: int
) -> list[Variables]:
    _, learner, train, test = setting.problem
    plan = stream_plan(setting.config.seed, stream, weights)
    given = {"name": f"train {name}", "known_by": training_words(setting.config)}
    return kept_models(bench, learner, train, test.inputs[:1], plan, **given)
