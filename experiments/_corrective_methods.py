"""Contestants of the corrective study, and the rule that sets their strength."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.curvature.diagonal import batch_gradient_moment
from unlearn_jax.data.accumulate import collect
from unlearn_jax.methods import METHODS, Method, Request, check_task
from unlearn_jax.methods.dampening import Importance, dampen
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables

POTION = "potion"
STRENGTHS: dict[str, tuple[str, tuple[float, ...]]] = {
    "gradient_ascent": ("learning_rate", (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
    "scrub": ("learning_rate", (1e-3, 3e-3, 0.01, 0.03, 0.1)),
    "ssd": ("alpha", (100.0, 30.0, 10.0, 3.0, 1.0)),
    "influence_removal": ("scale", (1.0, 3.0, 10.0, 30.0, 100.0)),
}
"""Method -> the hyper-parameter that says how hard it forgets, weakest first."""


class Contestant(NamedTuple):
    """Description: a method in all strengths that may be tried.

    Attributes:
        prepare: Of any of them; the strength plays no part in it.
        strengths: Weakest first; one None where there is nothing to choose.
        forgets: One for each strength.
    """

    prepare: Callable[..., Any]
    strengths: tuple[float | None, ...]
    forgets: tuple[Callable[..., Any], ...]


def contestants(
    learner: Learner,
    names: Sequence[str],
    options: dict[str, dict[str, Any]],
    *,
    most: int,
    rho: float,
) -> dict[str, Contestant]:
    """Methods by name.

    Args:
        learner: What originals are trained with.
        names: Of METHODS, or "potion".
        options: Hyper-parameters by method; one that sets a strength ends the search.
        most: Strengths of each method, spread over its list; 0 for all.
        rho: Of Potion.

    Raises:
        ValueError: an unknown name.
    """
    found = {}
    for name in names:
        if name == POTION:
            method = potion(learner, rho=rho)
            found[name] = Contestant(method.prepare, (None,), (method.forget,))
            continue
        check_task(name, "classification")
        factory, own = METHODS[name].factory, dict(options.get(name, {}))
        word, values = STRENGTHS.get(name, ("", ()))
        if word and word not in own:
            tried = _thinned(values, most)
            methods = [factory(learner, **own, **{word: value}) for value in tried]
        else:
            tried, methods = (None,), [factory(learner, **own)]
        forgets = tuple(method.forget for method in methods)
        found[name] = Contestant(methods[0].prepare, tried, forgets)
    return found


def potion(
    learner: Learner,
    *,
    rho: float = 0.2,
    growth: float = 1.1,
    tries: int = 500,
    importance_batch: int = 64,
) -> Method:
    """Dampen a growing share of all parameters until the known bad is forgotten.

    Label-free importances, taken once. With p = ln(1 + 100 s) percent, the p percent of
    the parameters with the largest ratio of importances are dampened, from the original
    each time; s starts at (n_forget / n) / 25 and grows.

    Args:
        learner: Its model; the loss is not read.
        rho: Stop where the accuracy on the forget set, against the labels it was
            learned with, is at most so large a part of the original's.
        growth: Factor of s between tries.
        tries: Most tries.
        importance_batch: Examples averaged before the absolute value is taken.

    Cost: prepare, one gradient per training example; forget, one per forget example and
        a forward pass over them for each try.
    Source: Schoepf et al. 2024, arXiv 2406.09173, with their released importances: the
        gradient's absolute value for the mean norm of the outputs, not squared.
        Differs: the share is met by a sorted list, not by a percentile each time.
    """

    def importance(variables: Variables, data: Batch) -> Params:
        return batch_gradient_moment(
            bind(learner.model, variables.stats, _norm),
            variables.params,
            data,
            batch_size=importance_batch,
            moment=jnp.abs,
        )

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Any:
        del key
        return importance(original, train), jnp.sum(train.weights > 0)

    def forget(
        key: PRNGKey, state: Any, variables: Variables, request: Request
    ) -> tuple[Variables, Any]:
        del key
        overall, whole = state
        forgotten = importance(variables, request.forget)
        pairs = zip(jax.tree.leaves(forgotten), jax.tree.leaves(overall), strict=True)
        ratios = [
            jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0).ravel() for a, b in pairs
        ]
        ranked = jnp.sort(jnp.concatenate(ratios), descending=True)

        def attempt(share: Array) -> Variables:
            part = jnp.minimum(jnp.log1p(100 * share) / 100, 1)
            place = jnp.round(part * ranked.shape[0]).astype(jnp.int32)
            params = dampen(
                variables.params,
                Importance(overall, jnp.asarray(importance_batch, jnp.int32)),
                Importance(forgotten, jnp.asarray(importance_batch, jnp.int32)),
                alpha=ranked[jnp.minimum(place, ranked.shape[0] - 1)],
                dampening=1.0,
            )
            return variables._replace(params=params)

        def agrees(variables: Variables) -> Array:
            return agreement(learner, variables, request.forget)

        goal = rho * agrees(variables)

        def going(state: Any) -> Array:
            _, found, number = state
            return (found > goal) & (number < tries)

        def again(state: Any) -> Any:
            share, _, number = state
            return share * growth, agrees(attempt(share * growth)), number + 1

        known = jnp.sum(request.forget.weights > 0)
        first = (known / whole / 25).astype(ranked.dtype)
        begin = (first, agrees(attempt(first)), jnp.ones((), jnp.int32))
        share, _, _ = jax.lax.while_loop(going, again, begin)
        return attempt(share), state

    return Method(prepare, forget)


def agreement(learner: Learner, variables: Variables, data: Batch) -> Array:
    """Share of the examples whose given label is predicted, right or wrong."""

    def part(inputs: Any, at: Variables) -> Array:
        return jnp.argmax(learner.model.apply(at, inputs), axis=-1)

    found = collect(part, data.inputs, variables)
    hits = (found == data.targets) * data.weights
    return jnp.sum(hits) / jnp.sum(data.weights)


def _norm(outputs: Any, targets: Any) -> Array:
    del targets
    return jnp.sqrt(jnp.sum(jnp.square(outputs), axis=-1))


def _thinned(values: tuple[float, ...], most: int) -> tuple[float, ...]:
    if not 0 < most < len(values):
        return values
    places = np.linspace(0, len(values) - 1, most + 2)[1:-1].round().astype(int)
    return tuple(values[place] for place in places)
