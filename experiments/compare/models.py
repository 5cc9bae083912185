"""Originals, oracles and the price of training one: trained once, for every run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.compare.setting import Case, Setting
from experiments.frame.bench import Bench
from experiments.frame.ensembles import kept_models, training_words
from experiments.frame.price import priced
from experiments.frame.problem import seed_key
from unlearn_jax.ensembles.plan import Plan
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.storage.piece import Piece
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, PRNGKey, Variables


def originals(bench: Bench, setting: Setting) -> list[Variables]:
    """One model for each training seed, on all examples; those given, if any are."""
    if setting.given:
        return list(setting.given)
    seeds = setting.config.seeds
    keys = [seed_key("train", seeds.first + i) for i in range(seeds.train)]
    return trained(bench, setting, "originals", keys, setting.train.weights)


def oracles(bench: Bench, setting: Setting, case: Case) -> list[Variables]:
    """Models retrained without the forget set, with randomness of their own."""
    config = setting.config
    keys = [seed_key("oracle", config.seeds.first + m) for m in range(config.oracles)]
    weights = case.request.retain.weights
    return trained(bench, setting, f"oracles of {case.name}", keys, weights)


def training_cost(bench: Bench, setting: Setting, case: Case) -> dict[str, Any]:
    """The price of one retraining, by itself, as every method is measured."""

    def measure() -> Piece:
        key = seed_key("oracle", setting.config.seeds.first)
        retrain = functools.partial(_retrain, setting.learner)
        what = setting.learner, setting.train, retrain, key, case.request.retain
        with bench.progress(f"price of one retraining, {case.name}", 1):
            _, cost = priced(*what)
        return Piece({}, cost._asdict())

    words = {**training_words(setting.config), **request_words(case)}
    return bench.keep(f"retraining/{case.name}", measure, known_by=words).data


def _retrain(learner: Learner, key: PRNGKey, data: Batch) -> Variables:
    return fit(key, learner, data)


def original_words(setting: Setting, i: int) -> dict[str, Any]:
    """What decides an original, beside how it would be trained and its seed."""
    if not setting.given:
        return {}
    values = {
        f"{number}": np.asarray(leaf)
        for number, leaf in enumerate(jax.tree.leaves(setting.given[i]))
    }
    return {"original": digest_arrays(b"", "original", values).hex()}


def trained(
    bench: Bench, setting: Setting, name: str, keys: list[Any], weights: Any
) -> list[Variables]:
    """One model for each key; weights of all of them (n,), or of each (m, n)."""
    config, count = setting.config, len(keys)
    own = np.asarray(weights)
    plan = Plan(
        np.asarray(jax.random.key_data(jnp.stack(keys))),
        np.array(np.broadcast_to(own, (count, own.shape[-1]))),
    )
    return kept_models(
        bench,
        setting.learner,
        setting.train,
        setting.dataset.splits.test.inputs[:1],
        plan,
        name=f"train {name}",
        known_by=training_words(config),
        members=config.members,
    )


def request_words(case: Case) -> dict[str, Any]:
    """What decides a request: its words, and which examples it is judged by."""
    names = ("forget", "test", "unseen")
    parts = {name: np.asarray(getattr(case, name)) for name in names}
    return {"request": case.name, "examples": digest_arrays(b"", "case", parts).hex()}
