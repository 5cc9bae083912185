"""Methods in all strengths that may be tried, and the rule that chooses one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from experiments.frame.options import Options
from unlearn_jax.methods import METHODS, Method, check_task
from unlearn_jax.train.recipe import Learner

STRENGTHS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "gradient_ascent": ("learning_rate", (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
    "scrub": ("learning_rate", (1e-3, 3e-3, 0.01, 0.03, 0.1)),
    "ssd": ("alpha", (100.0, 30.0, 10.0, 3.0, 1.0)),
    "influence_removal": ("scale", (1.0, 3.0, 10.0, 30.0, 100.0)),
}
"""Method -> the hyper-parameter that says how hard it forgets, weakest first."""

Contestant: TypeAlias = dict[float | None, Method]
"""A method by strength, weakest first; by None where there is nothing to choose."""


def contestant(
    learner: Learner, name: str, options: Options, *, most: int, rho: float
) -> Contestant:
    """One method in its strengths, of which the first may prepare for all.

    Args:
        learner: What originals are trained with.
        name: In ``METHODS``.
        options: One that sets a strength ends the search.
        most: Strengths, spread over the method's list; 0 for all.
        rho: Of Potion, unless the options set it.

    Raises:
        ValueError: it needs what is not there, or options do not fit.
    """
    check_task(name, "classification")
    if METHODS[name].trace:
        raise ValueError(
            f"{name} reads a trace of training, and none is kept here; leave it out"
        )
    factory, own = METHODS[name].factory, dict(options.of(name))
    if name == "potion":
        own = {"rho": rho, **own}
    word, values = STRENGTHS.get(name, ("", ()))
    if not word or word in own:
        return {None: factory(learner, **own)}
    if 0 < most < len(values):
        places = np.linspace(0, len(values) - 1, most + 2)[1:-1].round().astype(int)
        values = tuple(values[place] for place in places)
    return {value: factory(learner, **own, **{word: value}) for value in values}


def search(
    strengths: Sequence[float | None],
    attempt: Callable[[Any], tuple[Any, float]],
    agreements: Callable[[Any], tuple[float, float]],
    *,
    goal: float,
    least: float,
) -> tuple[Any, float | None, float, float]:
    """The weakest strength that forgets enough and keeps enough.

    Where there is none, of those that keep enough the one that forgets most; where all
    keep too little, the weakest.

    Args:
        strengths: Weakest first.
        attempt: The model of a strength, and the seconds it took.
        agreements: How often a model predicts the labels of the known bad examples,
            and those of the others.
        goal: Most of the first.
        least: Least of the second.

    Returns:
        Model, strength, the first of its agreements, and seconds of all that was tried.
    """
    spent, best = 0.0, None
    for strength in strengths:
        variables, seconds = attempt(strength)
        spent += seconds
        left, kept = agreements(variables)
        if best is None or (kept >= least and left < best[2]):
            best = variables, strength, left
        if left <= goal or kept < least:
            break
    assert best is not None  # there is a strength
    return *best, spent
