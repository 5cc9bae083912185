"""Heads trained by gradients on the same frozen features; all of them store rows."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.continual.heads import (
    Applied,
    Contestant,
    Frozen,
    check_stored,
    kept_bytes,
    stored_rows,
)
from experiments.continual.stream import ABSENT, Event
from experiments.frame.options import Options
from unlearn_jax.data.batch import take
from unlearn_jax.evaluation.cost import Compiled, compile_once
from unlearn_jax.methods import METHODS, Method, Request, make_request
from unlearn_jax.models import MODELS
from unlearn_jax.models.random_features import directions
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch, Variables

RETRAIN = "SGD retrain"
SGD_METHODS = {"retrain": RETRAIN, "finetune": "SGD fine-tune", "ssd": "SGD, SSD"}
"""Methods of ``METHODS`` that take part, and their names in the tables."""
SGD_FACTORIES = {name: METHODS[name].factory for name in SGD_METHODS}


class Head(NamedTuple):
    """Value: a softmax head, what its method prepared, and which rows are stored."""

    variables: Variables
    prepared: Any
    labels: np.ndarray


def sgd_heads(
    frozen: Frozen, recipe: Recipe, options: Options
) -> dict[str, Contestant]:
    """The contestants by the names of their methods.

    Args:
        frozen: Frozen features, scaled to a mean square of 1 for the heads.
        recipe: How a head is trained from scratch, and further when rows come in.
        options: Hyper-parameters of the methods.
    """
    d = frozen.features.shape[1]
    learner, methods = head_methods(d, frozen.classes, recipe, options)
    rows, known = jnp.asarray(scaled(frozen.features)), programs()
    return {
        name: _contestant(frozen, name, learner, method, (rows, known))
        for name, method in methods.items()
    }


def head_methods(
    width: int, classes: int, recipe: Recipe, options: Options
) -> tuple[Learner, dict[str, Method]]:
    """The learner of a softmax head, and the methods that forget in it.

    Raises:
        ValueError: an option out of range.
    """
    learner = head_learner(width, classes, recipe)
    return learner, {
        name: factory(learner, **options.of(name))
        for name, factory in SGD_FACTORIES.items()
    }


def head_learner(width: int, classes: int, recipe: Recipe) -> Learner:
    """Softmax regression on frozen features."""
    model = MODELS["linear"]((width,), classes, dtype=jnp.float32)
    return Learner(model, cross_entropy, 0.0, recipe)


def scaled(features: np.ndarray) -> np.ndarray:
    """The same directions that the ridge sees, each coordinate about 1."""
    unit = np.asarray(directions(features))
    return (unit * np.sqrt(unit.shape[1])).astype(np.float32)


def _contestant(
    frozen: Frozen, name: str, learner: Learner, method: Method, shared: tuple[Any, Any]
) -> Contestant:
    key, (rows, known) = jax.random.key(0), shared
    further = learner._replace(
        recipe=replace(learner.recipe, epochs=max(1, learner.recipe.epochs // 2))
    )

    def batch(labels: np.ndarray) -> Batch:
        within = labels != ABSENT
        targets = jnp.asarray(np.where(within, labels, 0), jnp.int32)
        return Batch(rows, targets, jnp.asarray(within, jnp.float32))

    def start() -> Head:
        variables = learner.model.init(key)
        labels = np.full(len(frozen.features), ABSENT)
        return Head(variables, (), labels)

    def request(head: Head, event: Event) -> Request:
        made = make_request(batch(head.labels), event.forget)
        if METHODS[name].reads in ("forget", "both"):
            return made
        # What is not read need not change its shape, and compile anew.
        return made._replace(forget=take(made.forget, [0]))

    def apply(head: Head, event: Event) -> Applied:
        check_stored(event)
        variables, prepared, spent = head.variables, head.prepared, Spent(0.0, 0.0)
        after = batch(event.labels)
        first = bool(np.all(head.labels == ABSENT))
        if name == "retrain" or first:
            train = known("fit", lambda k, data: fit(k, learner, data))
            variables, spent = train(spent, key, after)
        elif event.forget.size:
            forget = known(f"{name} forget", method.forget)
            (variables, prepared), spent = forget(
                spent, key, prepared, variables, request(head, event)
            )
        if name != "retrain" and event.learn.size:
            if not first:
                train = known(
                    "further", lambda k, data, old: fit(k, further, data, start=old)
                )
                variables, spent = train(spent, key, after, variables)
            if METHODS[name].prepares:
                prepare = known(f"{name} prepare", method.prepare)
                prepared, spent = prepare(spent, key, variables, after)
        return Applied(Head(variables, prepared, event.labels), *spent)

    def scores(head: Head, features: np.ndarray) -> np.ndarray:
        inputs = jnp.asarray(scaled(features))
        return np.asarray(outputs(head.variables, inputs), np.float64)

    outputs = jax.jit(learner.model.apply)
    return Contestant(
        SGD_METHODS[name],
        RETRAIN,
        start,
        apply,
        scores,
        None,
        lambda head: kept_bytes((head.variables, head.prepared)),
        lambda labels: stored_rows(frozen, labels),
    )


class Spent(NamedTuple):
    """Value: seconds warm, seconds of compilation."""

    seconds: float
    compile_seconds: float


def programs() -> Callable[[str, Callable[..., Any]], Callable[..., Any]]:
    """Functions compiled once per shape, that add up what they cost."""
    known: dict[Any, Compiled] = {}

    def program(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(spent: Spent, *args: Any) -> tuple[Any, Spent]:
            leaves, structure = jax.tree.flatten(args)
            shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
            place, compiling = (name, structure, shapes), 0.0
            if place not in known:
                known[place] = compile_once(function, *args)
                compiling = known[place].compile_seconds
            begin = time.perf_counter()
            result = jax.block_until_ready(known[place].call(*args))
            seconds = time.perf_counter() - begin
            return result, Spent(
                spent.seconds + seconds, spent.compile_seconds + compiling
            )

        return call

    return program
