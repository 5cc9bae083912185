"""Train on all chains and on one, forget the others, and compare distributions."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.frame.bench import Bench, piece_of, rows_of
from experiments.frame.progress import progress
from experiments.markov.config import Config
from experiments.markov.contenders import CONTENDERS, Costs, settings
from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.markov import Chains, markov, true_log_probabilities
from unlearn_jax.evaluation.cost import measured
from unlearn_jax.methods import METHODS, Request, make_request
from unlearn_jax.models import MODELS
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Variables

ORIGINAL, ORACLE = "original", "oracle"
TRUTH = "truth"


class Judges(NamedTuple):
    """Description: what is compiled once and serves every method.

    Attributes:
        said: ``params (models, p) -> log-probabilities (models, n, t, k)`` on the test
            sequences.
        risks: ``params (models, p) -> (models, 2)`` mean training losses of the forget
            and the retain set [nats].
    """

    said: Callable[[Any], np.ndarray]
    risks: Callable[[Any], np.ndarray]


class Setting(NamedTuple):
    """Description: the chains, the learner and the request."""

    config: Config
    dataset: Dataset
    chains: Chains
    learner: Learner
    request: Request


def build(config: Config) -> Setting:
    """Draw the chains.

    Raises:
        ValueError: fewer than two chains, or sizes of the model that do not fit.
    """
    chains = len(config.counts)
    dataset, drawn = markov(
        config.seed,
        config.counts,
        tests=(config.tests,) * chains,
        lengths=(config.length,) * chains,
        leakage=config.leakage,
    )
    model = MODELS["transformer"](
        (config.length,),
        dataset.classes,
        depth=config.depth,
        width=config.width,
        scan=config.depth > 2,
    )
    learner = Learner(model, sequence_nll, 0.0, config.recipe)
    sources = np.asarray(dataset.subclasses)
    request = make_request(dataset.splits.train, np.flatnonzero(sources > 0))
    return Setting(config, dataset, drawn, learner, request)


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Divergences of every method from the truth and from retraining, by chain."""
    config = setting.config
    models = {
        name: bench.keep(name, functools.partial(_trained, setting, name)).arrays
        for name in (ORIGINAL, ORACLE)
    }
    judged = judges(setting)
    said = judged.said(models[ORACLE]["params"])
    yield from divergences(setting, ORACLE, said, said)
    yield from _losses(ORACLE, judged.risks(models[ORACLE]["params"]))
    with bench.progress("forget", len(config.methods)) as advance:
        for name in config.methods:
            made = bench.keep(
                f"forget/{name}",
                functools.partial(
                    _contended, setting, judged, name, models[ORIGINAL]["params"], said
                ),
            )
            yield from rows_of(made)
            advance(1)


def _keys(config: Config, stream: int) -> Array:
    return jax.random.split(jax.random.key(1000 * stream + config.seed), config.models)


def _trained(setting: Setting, name: str) -> Piece:
    """Parameters of all models of a kind, (models, p)."""
    config, request = setting.config, setting.request
    data = setting.dataset.splits.train if name == ORIGINAL else request.retain

    def one(key: Any, data: Batch) -> Array:
        return ravel_pytree(fit(key, setting.learner, data).params)[0]

    keys = _keys(config, 1 if name == ORIGINAL else 2)
    with progress(f"train {name}", 1):
        many = jax.jit(jax.vmap(one, (0, None)))
        params, cost = measured(many, keys, data)
    return Piece({"params": params}, {"seconds": cost.seconds / config.models})


def _variables(setting: Setting, flat: Any) -> Variables:
    like = jax.eval_shape(setting.learner.model.init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return Variables(ravel_pytree(zeros.params)[1](jnp.asarray(flat)), zeros.stats)


def judges(setting: Setting) -> Judges:
    """Judges of this setting's models."""
    model = setting.learner.model
    objective = bind(model, {}, sequence_nll)
    inputs = jnp.asarray(setting.dataset.splits.test.inputs)
    request = jax.tree.map(jnp.asarray, setting.request)

    def said(flat: Any, inputs: Any) -> Array:
        outputs = model.apply(_variables(setting, flat), inputs)
        return jax.nn.log_softmax(outputs, axis=-1)

    def risks(flat: Any, request: Request) -> Array:
        at = _variables(setting, flat).params
        return jnp.stack([objective.risk(at, part) for part in request])

    def over(one: Callable[..., Array], data: Any) -> Callable[[Any], np.ndarray]:
        run = jax.jit(lambda many, data: jax.lax.map(lambda f: one(f, data), many))
        return lambda many: np.asarray(run(jnp.asarray(many), data), np.float64)

    return Judges(over(said, inputs), over(risks, request))


def divergences(
    setting: Setting, name: str, said: np.ndarray, oracles: np.ndarray
) -> Iterator[Row]:
    """KL(truth ‖ model), and the mean over oracles of KL(oracle ‖ model) [nats].

    Of oracles themselves over the other oracles, which is the floor.

    Args:
        setting: Chains and test sequences.
        name: Of the row.
        said: (models, n, t, k) log-probabilities.
        oracles: The same of the retrained models.
    """
    test = setting.dataset.splits.test
    sources = np.asarray(setting.dataset.test_subclasses)
    truth = true_log_probabilities(setting.chains, np.asarray(test.inputs), sources)
    for chain, split in enumerate(setting.chains.names):
        there = sources == chain
        for seed, own in enumerate(said):
            others = [
                oracle
                for i, oracle in enumerate(oracles)
                if not (name == ORACLE and i == seed)
            ]
            at = {"method": name, "split": split, "seed": seed}
            gap = kl(truth[there], own[there])
            yield Row(f"kl_{TRUTH}", gap, "nats", at)
            if others:
                mean = np.mean([kl(o[there], own[there]) for o in others])
                yield Row(f"kl_{ORACLE}", float(mean), "nats", at)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """Mean over positions of KL(exp p ‖ exp q), of log-probabilities (..., k)."""
    probable = np.isfinite(p)
    gap = np.where(probable, np.where(probable, p, 0) - q, 0)
    return float(np.mean(np.sum(np.exp(p) * gap, axis=-1)))


def _losses(name: str, risks: np.ndarray) -> Iterator[Row]:
    for seed, (forget, retain) in enumerate(risks):
        at = {"method": name, "seed": seed}
        yield Row("forget_loss", float(forget), "nats", at)
        yield Row("retain_loss", float(retain), "nats", at)


def _contended(
    setting: Setting,
    judged: Judges,
    name: str,
    originals: np.ndarray,
    oracles: np.ndarray,
) -> Piece:
    """All trials of a method, and the rows of the one that is chosen."""
    config = setting.config
    costs = Costs(sum(config.counts[1:]), config.counts[0], config.passes)
    before = judged.risks(originals)
    tried = []
    for options in settings(name, costs, config.trials):
        params, seconds = _unlearned(setting, name, options, originals)
        tried.append((options, params, seconds, judged.risks(params)))
    place = chosen(
        [after.mean(0) for *_, after in tried], before.mean(0), config.budget
    )
    options, params, seconds, after = tried[place]
    rows = [*divergences(setting, name, judged.said(params), oracles)]
    rows += _losses(name, after)
    at = {"method": name}
    rows.append(Row("forget_seconds", seconds, "s", at))
    rise = float(after[:, 1].mean() - before[:, 1].mean())
    rows.append(Row("retain_rise", rise, "nats", at))
    option = CONTENDERS[name].tries[0]
    if option:
        rows.append(Row("chosen", float(options[option]), "1", at))
    return piece_of(rows)


def chosen(after: list[np.ndarray], before: np.ndarray, budget: float) -> int:
    """The trial that forgets most within the budget; the least harmful if none is.

    Args:
        after: Of each trial (forget loss, retain loss) in training.
        before: The same of the original.
        budget: Rise of the retain loss that is allowed.
    """
    rises = [_number(losses[1] - before[1]) for losses in after]
    inside = [i for i, rise in enumerate(rises) if rise <= budget]
    if not inside:
        return int(np.argmin(rises))
    return max(inside, key=lambda i: after[i][0])


def _number(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _unlearned(
    setting: Setting, name: str, options: dict[str, Any], originals: np.ndarray
) -> tuple[np.ndarray, float]:
    """Parameters after the request, (models, p), and seconds for one model."""
    factory: Callable[..., Any] = METHODS[CONTENDERS[name].method].factory
    method = factory(setting.learner, **options)

    def one(key: Any, flat: Any, train: Batch, request: Request) -> Array:
        prepare_key, forget_key = jax.random.split(key)
        original = _variables(setting, flat)
        state = method.prepare(prepare_key, original, train)
        moved, _ = method.forget(forget_key, state, original, request)
        return ravel_pytree(moved.params)[0]

    def many(keys: Any, flats: Any, train: Batch, request: Request) -> Array:
        return jax.lax.map(
            lambda pair: one(pair[0], pair[1], train, request), (keys, flats)
        )

    given = _keys(setting.config, 3), jnp.asarray(originals)
    params, cost = measured(many, *given, setting.dataset.splits.train, setting.request)
    return np.asarray(params), cost.seconds / len(originals)
