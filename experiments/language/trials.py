"""Train many models alike, unlearn each with every setting, and choose a setting.

No choice reads a retrained model or anything that is reported: there are the losses on
what is to be forgotten and retained, and on sequences of the kind that is forgotten
which nobody was trained on.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.language.contenders import (
    CONTENDERS,
    RHOS,
    Contender,
    Costs,
    by_win_rate,
    settings,
)
from unlearn_jax.data.batch import take
from unlearn_jax.evaluation.cost import measured
from unlearn_jax.methods import METHODS, Request
from unlearn_jax.methods.sophia import sophia_run
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Variables

ORIGINAL, ORACLE = "original", "oracle"
CHOICES = ("budget", "unseen")
"""How a setting is chosen, see :func:`chosen`."""


class Task(NamedTuple):
    """Description: what is unlearned, and by what a setting is chosen.

    Attributes:
        learner: Of all models.
        train: What originals were trained on.
        request: What is asked.
        unseen: Of the kind that is forgotten, and never trained on.
        costs: What each method may spend.
        models: Seeds.
        seed: Draws the keys.
        start: Where training begins; None is a fresh model of each seed's own.
        spelled: ``train`` and ``request`` in tokens, where theirs are what frozen
            blocks made of them: methods with other answers write tokens.
    """

    learner: Learner
    train: Batch
    request: Request
    unseen: Batch
    costs: Costs
    models: int
    seed: int
    start: Variables | None = None
    spelled: tuple[Batch, Request] | None = None


class Tried(NamedTuple):
    """Value: all settings of a method, on all models.

    Attributes:
        options: Of each setting.
        params: (settings, models, p).
        losses: (settings, models, 3), see :func:`losses_of`.
        told: Name -> (settings, models), what a method says of itself.
        seconds: For one setting and one model.
    """

    options: list[dict[str, Any]]
    params: np.ndarray
    losses: np.ndarray
    told: Mapping[str, np.ndarray]
    seconds: float


def keys(task: Task, stream: int) -> Array:
    """A key for each model."""
    return jax.random.split(jax.random.key(1000 * stream + task.seed), task.models)


def trained(task: Task, name: str, data: Batch) -> Piece:
    """Parameters of all models of a kind, (models, p), trained on weighted examples."""

    def many(keys: Any, data: Batch, start: Any) -> Array:
        def one(key: Any) -> Array:
            return ravel_pytree(fit(key, task.learner, data, start=start).params)[0]

        return jax.lax.map(one, keys)

    own = keys(task, 1 if name == ORIGINAL else 2)
    given = jax.tree.map(jnp.asarray, (data, task.start))
    params, cost = measured(many, own, *given)
    return Piece({"params": params}, {"seconds": cost.seconds / task.models})


def stats_of(task: Task) -> Any:
    """What all models share beside their parameters: the base of adapters, or nothing.

    An argument of every program, since it may be a whole published model.
    """
    if task.start is not None:
        return task.start.stats
    like = jax.eval_shape(task.learner.model.init, jax.random.key(0)).stats
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)


def variables_of(learner: Learner, flat: Any, stats: Any) -> Variables:
    """A model's variables from its parameters in a row."""
    like = jax.eval_shape(learner.model.init, jax.random.key(0)).params
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return Variables(ravel_pytree(zeros)[1](jnp.asarray(flat)), stats)


def over_models(
    task: Task, one: Callable[..., Any], *data: Any
) -> Callable[[Any], Any]:
    """``one(variables, *data)`` for each model of (models, p), compiled once; in numpy.

    Args:
        task: Whose models they are.
        one: Of a model's variables.
        data: Given to every call, as arguments of the program.
    """

    @jax.jit
    def run(many: Any, stats: Any, data: Any) -> Any:
        def each(flat: Any) -> Any:
            return one(variables_of(task.learner, flat, stats), *data)

        return jax.lax.map(each, many)

    data, stats = jax.tree.map(jnp.asarray, (data, stats_of(task)))
    return lambda many: jax.tree.map(np.asarray, run(jnp.asarray(many), stats, data))


def losses_of(task: Task) -> Callable[[Any], np.ndarray]:
    """``params (models, p) -> (models, 3)``: mean loss of forget, retain and unseen."""
    model, loss = task.learner.model, task.learner.loss
    parts = [present(part) for part in (*task.request, task.unseen)]

    def one(at: Variables, *parts: Batch) -> Array:
        objective = bind(model, at.stats, loss)
        return jnp.stack([objective.risk(at.params, part) for part in parts])

    return over_models(task, one, *parts)


def present(batch: Batch) -> Batch:
    """The examples whose weight is not zero."""
    return take(batch, np.flatnonzero(np.asarray(batch.weights)))


def tried(
    task: Task,
    name: str,
    trials: int,
    originals: np.ndarray,
    losses: Callable[..., Any],
) -> Tried:
    """Every setting of a contender on every original."""
    contender = CONTENDERS[name]
    options = settings(name, task.costs, trials)
    if contender.rho:
        rho = _rho(task, contender, options[0], originals)
        options = [{**own, "rho": rho} for own in options]
    option = contender.tries[0]
    if option and contender.traced:
        fixed = {key: value for key, value in options[0].items() if key != option}
        given = {option: np.array([own[option] for own in options], np.float32)}
        groups = [_run(task, contender, fixed, given, originals)]
    else:
        groups = [_run(task, contender, own, {}, originals) for own in options]
    params = np.concatenate([group[0] for group in groups])
    told = jax.tree.map(lambda *own: np.concatenate(own), *[g[1] for g in groups])
    seconds = sum(group[2] for group in groups) / (len(options) * len(originals))
    after = np.stack([losses(own) for own in params])
    return Tried(options, params, after, told, seconds)


def chosen(
    after: np.ndarray, before: np.ndarray, budget: float, choice: str = "budget"
) -> int:
    """The setting that is taken, one for all models.

    Args:
        after: (settings, 3) mean losses over models of forget, retain and unseen.
        before: (3,) the same of the originals.
        budget: Rise of the retain loss that is allowed [nats].
        choice: "budget": what forgets most within it, and the least harmful if nothing
            is. "unseen": whose forget loss is nearest to what the original says of
            unseen sequences, and its retain loss to the original's; no budget.
    """
    rises = _known(after[:, 1] - before[1])
    if choice == "unseen":
        apart = _known(np.abs(after[:, 0] - before[2]))
        return int(np.argmin(apart + np.maximum(rises, 0)))
    inside = rises <= budget
    if not inside.any():
        return int(np.argmin(rises))
    return int(np.argmax(np.where(inside, after[:, 0], -math.inf)))


def losses_rows(losses: np.ndarray, at: Mapping[str, Any]) -> Iterator[Row]:
    """Losses (models, 3) as rows."""
    for seed, own in enumerate(losses):
        for part, loss in zip(("forget", "retain", "unseen"), own, strict=True):
            yield Row(f"{part}_loss", float(loss), "nats", {**at, "seed": seed})


def rows_of_choice(
    name: str, choice: str, made: Tried, place: int, before: np.ndarray
) -> Iterator[Row]:
    """What was chosen, what it cost the retain set, and what the method says.

    Args:
        name: Of the contender.
        choice: How it was chosen.
        made: All settings.
        place: Which of them.
        before: (models, 3) losses of the originals.
    """
    at = {"method": name, "choice": choice}
    yield from losses_rows(made.losses[place], at)
    rise = float(made.losses[place, :, 1].mean() - before[:, 1].mean())
    yield Row("retain_rise", rise, "nats", at)
    options = made.options[place]
    for option in (CONTENDERS[name].tries[0], "rho"):
        if option in options:
            yield Row(f"chosen_{option}", float(options[option]), "1", at)
    for word, told in made.told.items():
        yield Row(word, float(told[place].mean()), "1", at)


def _known(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, math.inf)


def _rho(
    task: Task, contender: Contender, options: dict[str, Any], originals: np.ndarray
) -> float:
    """Sophia's ρ, by its win rate on the first original at the first setting."""
    given = {"rho": np.array(RHOS, np.float32)}
    _, told, _ = _run(task, contender, options, given, originals[:1])
    return by_win_rate([float(rate) for rate in told["win_rate"][:, 0]])


def _run(
    task: Task,
    contender: Contender,
    fixed: dict[str, Any],
    given: dict[str, np.ndarray],
    originals: np.ndarray,
) -> tuple[np.ndarray, dict[str, np.ndarray], float]:
    """(settings, models, p) parameters, what is told, and seconds of all together."""
    learner = task.learner

    def unlearned(
        key: Any, original: Variables, train: Batch, request: Request, own: Any
    ) -> Any:
        prepare_key, forget_key = jax.random.split(key)
        options = {**fixed, **own}
        if contender.method == "sophia":
            moved, left = sophia_run(learner, **options)(forget_key, original, request)
            return ravel_pytree(moved.params)[0], {"win_rate": left.win_rate}
        method = METHODS[contender.method].factory(learner, **options)
        state = method.prepare(prepare_key, original, train)
        moved, _ = method.forget(forget_key, state, original, request)
        return ravel_pytree(moved.params)[0], {}

    def many(
        keys: Any, flats: Any, stats: Any, train: Batch, request: Request, given: Any
    ) -> Any:
        def models(own: Any) -> Any:
            def one(pair: Any) -> Any:
                key, flat = pair
                original = variables_of(learner, flat, stats)
                return unlearned(key, original, train, request, own)

            return jax.lax.map(one, (keys, flats))

        if given:
            return jax.lax.map(models, given)
        return jax.tree.map(lambda leaf: leaf[None], models({}))

    own_keys = keys(task, 3)[: len(originals)]
    sets = task.train, task.request
    if "answers" in fixed:
        sets = task.spelled or sets
    held = originals, stats_of(task), *sets, given
    data = jax.tree.map(jnp.asarray, held)
    (params, told), cost = measured(many, own_keys, *data)
    return np.asarray(params), jax.tree.map(np.asarray, told), cost.seconds
