"""Who competes: every method with each setting, and its price at the request."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.dmm.config import RESPONSE, Config
from experiments.frame.options import hyperparameters
from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.attribution.attribution import Evidence, as_trained
from unlearn_jax.attribution.trace import Trace, checkpoints_of, unrolled_response
from unlearn_jax.data.accumulate import collect
from unlearn_jax.methods import METHODS, Request
from unlearn_jax.methods.datamodel_matching import MatchingState, predicted_outputs
from unlearn_jax.methods.matching import matching, outputs_of
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Variables

ORACLE_MATCHING = "oracle matching"

Price = Callable[[int, int], float]
"""``(forgotten, retained) -> `` example gradients at the request; the unit of what
needs no more than a forward pass is a third."""


class Contender(NamedTuple):
    """Description: one method with its hyper-parameters.

    Attributes:
        family: Its row in the tables; settings of one family compete with each other.
        setting: Hyper-parameters, in words.
        known_by: All that decides what it does, beside the models and the request.
        prepare: ``(key, original, train) -> state``, or ``(key, evidence, train)`` of
            an attribution; None where the state is an oracle.
        attribution: Whose state serves all originals and settings; "" of a method.
        forget: ``(key, state, variables, request, queries) -> variables``, or the
            predicted outputs of the queries.
        direct: Whether it predicts outputs, and has no parameters of its own.
        price: None where it is not known.
        traced: Whether ``prepare`` has one argument more, the trace of the original.
    """

    family: str
    setting: str
    known_by: Mapping[str, Any]
    prepare: Callable[..., Any] | None
    attribution: str
    forget: Callable[..., Any]
    direct: bool
    price: Price | None
    traced: bool = False


def contenders(config: Config, learner: Learner) -> list[Contender]:
    """Methods, matching with every attribution, and matching with true oracles.

    Raises:
        ValueError: an option that a factory refuses, or several values of one of an
            attribution.
    """
    found = [one for name in config.methods for one in _methods(config, learner, name)]
    for name in config.attributions:
        make = _responded if name == RESPONSE else _predicted
        direct, ahead = make(config, learner, name)
        found += [direct, *_matched(config, learner, f"dmm: {name}", direct, ahead)]

    def own(_: PRNGKey, oracle: Variables, *given: Any) -> Array:
        return outputs_of(learner, oracle, given[-1].inputs)

    # The oracle's outputs are taken for given, but for a forward pass.
    known = Contender(ORACLE_MATCHING, "", {}, None, "", own, True, None)
    passes: Price = lambda queries, _: queries / 3  # noqa: E731  a shorthand
    return [*found, *_matched(config, learner, ORACLE_MATCHING, known, passes)]


def _methods(config: Config, learner: Learner, name: str) -> Iterator[Contender]:
    factory, given = METHODS[name].factory, config.options.of(name)
    defaults = {k: p.default for k, p in hyperparameters(factory).items()}
    several = {option for option, values in given.items() if len(values) > 1}
    for options in _first(config, config.options.settings(name)):
        method = factory(learner, **options)
        yield Contender(
            name,
            _words(options, several),
            {"options": options},
            method.prepare,
            "",
            lambda *given, run=method.forget: run(*given[:-1])[0],
            False,
            _price(learner, name, {**defaults, **options}),
            method.reads_trace,
        )


def _predicted(config: Config, learner: Learner, name: str) -> tuple[Contender, Price]:
    """An attribution's prediction by itself, and its price for so many queries."""
    options = config.options.settings(name)
    if len(options) > 1:
        raise ValueError(
            f"the options give {name} {len(options)} settings; an attribution takes "
            "one value of each option"
        )
    entry = ATTRIBUTIONS[name]
    made = entry.factory(as_trained(learner), **options[0])
    members = config.members if "ensemble" in entry.reads else 0

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> MatchingState:
        return MatchingState(made.prepare(key, evidence, train), train)

    def predict(_: PRNGKey, *given: Any) -> Array:
        return predicted_outputs(learner, made, *given)

    def ahead(queries: int, forgotten: int) -> float:
        # The members' outputs could be kept from before; here they are computed anew.
        each = config.models * (2 / 3 * queries + forgotten)
        return members * queries / 3 if members else each

    known = {"attribution": options[0], "models": config.models}
    known |= {"members": members, "share": config.share} if members else {}
    alone: Price = lambda forgotten, _: ahead(forgotten, forgotten)  # noqa: E731
    given = (f"direct: {name}", "", known, prepare, name, predict, True, alone)
    return Contender(*given), ahead


def _responded(config: Config, learner: Learner, name: str) -> tuple[Contender, Price]:
    """The same of the unrolled response: outputs along its change of parameters."""
    del config
    points = checkpoints_of(learner)
    if learner.recipe.optimizer != "sgd":
        raise ValueError(
            f"{name} reads a trace of training by 'sgd', got a recipe of "
            f"{learner.recipe.optimizer!r}; leave it out of the attributions"
        )

    def predict(
        _: PRNGKey, trace: Trace, at: Variables, request: Request, queries: Batch
    ) -> Array:
        kept = jnp.sum(request.retain.weights)
        change, _ = unrolled_response(learner, trace, request.forget, kept)

        def along(inputs: Any, at: Variables, change: Any) -> Array:
            def outputs(params: Any) -> Array:
                return learner.model.apply(at._replace(params=params), inputs)

            own, moved = jax.jvp(outputs, (at.params,), (change,))
            return own + moved

        return collect(along, queries.inputs, at, change)

    def ahead(queries: int, forgotten: int) -> float:
        return 2 / 3 * queries + points * forgotten

    alone: Price = lambda forgotten, _: ahead(forgotten, forgotten)  # noqa: E731
    given = (f"direct: {name}", "", {}, lambda *given: given[-1], "", predict)
    return Contender(*given, True, alone, traced=True), ahead


def _matched(
    config: Config, learner: Learner, family: str, known: Contender, ahead: Price
) -> Iterator[Contender]:
    """Fine-tunes towards what is known of the oracle's outputs."""
    every = [dataclasses.asdict(one) for one in config.matching]
    several = {name for name in every[0] if len({one[name] for one in every}) > 1}
    for options in _first(config, every):
        match = matching(learner, **options)

        def forget(
            key: PRNGKey,
            state: Any,
            variables: Any,
            request: Any,
            _: Batch,
            match=match,
        ) -> Variables:
            def targets(batch: Batch) -> tuple[Array, None]:
                return known.forget(key, state, variables, request, batch), None

            return match(key, variables, request, targets)[0]

        yield known._replace(
            family=family,
            setting=_words(options, several),
            known_by={**known.known_by, "matching": options},
            forget=forget,
            direct=False,
            price=functools.partial(_matching_price, options, ahead),
        )


def _price(learner: Learner, name: str, options: Mapping[str, Any]) -> Price | None:
    """Of a method; None where nobody has counted."""
    epochs, points = options.get("epochs", 1), checkpoints_of(learner)
    return {
        "finetune": lambda forgotten, retained: epochs * retained,
        "gradient_ascent": lambda forgotten, retained: epochs * forgotten,
        # A forward pass of the teacher with every gradient.
        "scrub": lambda forgotten, retained: (
            4 / 3 * (epochs * retained + options["ascent_epochs"] * forgotten)
        ),
        "ssd": lambda forgotten, retained: forgotten,
        # At most: a step of either ascent that is not needed is not made.
        "unrolled_removal": lambda forgotten, retained: (
            max(1, round(options["polish"] * learner.recipe.epochs)) * retained
            + (points + 1 + 2 * options["steps"]) * forgotten
        ),
    }.get(name)


def _matching_price(
    options: Mapping[str, Any], ahead: Price, forgotten: int, retained: int
) -> float:
    """The prediction for all matched examples, then the fine-tune."""
    kept = min(options["retain_ratio"] * forgotten, retained)
    tuned = options["epochs"] * (options["forget_copies"] * forgotten + kept)
    return tuned + ahead(forgotten + kept, forgotten)


def _first(config: Config, every: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many settings as are asked for; 0 is all."""
    return every[: config.settings or len(every)]


def _words(options: Mapping[str, Any], several: set[str]) -> str:
    """The settings that tell, and whatever has several values."""
    told = {"epochs", "learning_rate", "alpha"} | several
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
        for name, value in options.items()
        if name in told
    )
