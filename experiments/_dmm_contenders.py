"""Who competes: every method with a small grid, and its price at the request."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from experiments._dmm_setting import BASELINES, Setting
from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.attribution.attribution import Attribution, Evidence, as_trained
from unlearn_jax.methods import METHODS, Method, Request
from unlearn_jax.methods.datamodel_matching import (
    MatchingState,
    match_with,
    predicted_outputs,
)
from unlearn_jax.methods.matching import matching, outputs_of
from unlearn_jax.types import Array, Batch, PRNGKey, Variables

ORACLE_MATCHING = "oracle matching"

# The published values are the first ones where a small net moves at all under them;
# every method has its grid chosen on the first request.
GRIDS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "finetune": {"epochs": (1, 3), "learning_rate": (0.01, 0.1), "batch_size": (128,)},
    "gradient_ascent": {
        "epochs": (1, 5, 50),
        "learning_rate": (1e-5, 1e-4, 1e-3, 1e-2),
        "batch_size": (64,),
    },
    "scrub": {
        "epochs": (3,),
        "ascent_epochs": (2,),
        "learning_rate": (5e-4, 5e-3, 5e-2),
        "forget_batch": (32,),
    },
    "ssd": {"alpha": (5.0, 10.0, 50.0)},
}
# As published for a ResNet-9, as the released function defaults to, faster; the last
# one fine-tunes on 2,500 examples for a hundred forgotten ones.
MATCHING: tuple[Mapping[str, Any], ...] = tuple(
    {
        "epochs": epochs,
        "learning_rate": rate,
        "retain_ratio": 20,
        "forget_copies": 5,
        "batch_size": 512,
    }
    for epochs, rate in ((4, 1e-4), (4, 5e-4), (4, 2e-3), (1, 5e-4))
)

# TRAK as published fixes the order of scores, not their scale; with the Gauss-Newton
# matrix in place of its kernel they are changes of outputs.
ATTRIBUTION_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "trak": {"kernel": "outputs", "width": 1024, "damping": 1e-2},
}


class Contender(NamedTuple):
    """Description: one method with its hyper-parameters.

    Attributes:
        family: Its row in the tables; settings of one family compete with each other.
        setting: Hyper-parameters, in words.
        prepare: ``(key, original, train) -> state``; None where a state is shared or
            comes with the request.
        forget: ``(key, state, variables, request) -> variables``, or None.
        predict: ``(state, variables, request, queries) -> outputs`` of what has no
            parameters of its own, or None.
        gradients: ``(forgotten, retained) -> `` example gradients at the request; the
            unit of one that needs no more than a forward pass is a third.
    """

    family: str
    setting: str
    prepare: Callable[..., Any] | None
    forget: Callable[..., Variables] | None
    predict: Callable[..., Array] | None
    gradients: Callable[[int, int], float]


def contenders(setting: Setting) -> list[Contender]:
    """Baselines, matching with every attribution, and matching with true oracles."""
    found = [one for name in BASELINES for one in _baselines(setting, name)]
    for name in setting.config.attributions:
        found += _attributed(setting, name)
    return found + _with_oracles(setting)


def attribution_state(
    setting: Setting, name: str, evidence: Evidence, key: PRNGKey
) -> MatchingState:
    """What an attribution knows before any request, shared by all originals."""
    made = _attribution(setting, name)
    prepared = jax.jit(made.prepare)(key, evidence, setting.train)
    return MatchingState(prepared, setting.train)


def _attribution(setting: Setting, name: str) -> Attribution:
    options = ATTRIBUTION_OPTIONS.get(name, {})
    return ATTRIBUTIONS[name].factory(as_trained(setting.learner), **options)


def _baselines(setting: Setting, name: str) -> list[Contender]:
    return [
        Contender(
            name,
            _words(options),
            *_phases(METHODS[name].factory(setting.learner, **options)),
            None,
            _price(name, options),
        )
        for options in _grid(setting, GRIDS[name])
    ]


def _phases(method: Method) -> tuple[Callable[..., Any], Callable[..., Variables]]:
    return method.prepare, lambda *arguments: method.forget(*arguments)[0]


def _attributed(setting: Setting, name: str) -> list[Contender]:
    attribution = _attribution(setting, name)

    def nothing(*_: Any) -> Evidence:
        raise AssertionError("the state is shared")

    def predict(
        state: MatchingState, variables: Variables, request: Request, queries: Batch
    ) -> Array:
        return predicted_outputs(
            setting.learner, attribution, state, variables, request, queries
        )

    ahead = _prediction_price(setting, name)
    price = lambda forgotten, _: ahead(forgotten, forgotten)  # noqa: E731
    direct = Contender(f"direct: {name}", "", None, None, predict, price)
    found = [direct]
    for options in _first(setting, MATCHING):
        method = match_with(setting.learner, attribution, nothing, **options)
        found.append(
            Contender(
                f"dmm: {name}",
                _words(options),
                None,
                _phases(method)[1],
                None,
                _matching_price(options, ahead),
            )
        )
    return found


def _with_oracles(setting: Setting) -> list[Contender]:
    def one(options: dict[str, Any]) -> Contender:
        match = matching(setting.learner, **options)

        def forget(
            key: PRNGKey, oracle: Variables, variables: Variables, request: Request
        ) -> Variables:
            def targets(batch: Batch) -> Array:
                return outputs_of(setting.learner, oracle, batch.inputs)

            return match(key, variables, request, targets)

        words = _words(options)
        # The oracle's outputs are taken for given, but for a forward pass.
        price = _matching_price(options, lambda queries, _: queries / 3)
        return Contender(ORACLE_MATCHING, words, None, forget, None, price)

    return [one(options) for options in _first(setting, MATCHING)]


def _price(name: str, options: dict[str, Any]) -> Callable[[int, int], float]:
    epochs = options.get("epochs", 1)
    return {
        "finetune": lambda forgotten, retained: epochs * retained,
        "gradient_ascent": lambda forgotten, retained: epochs * forgotten,
        # A forward pass of the teacher with every gradient.
        "scrub": lambda forgotten, retained: (
            4 / 3 * (epochs * retained + options["ascent_epochs"] * forgotten)
        ),
        "ssd": lambda forgotten, retained: forgotten,
    }[name]


def _prediction_price(setting: Setting, name: str) -> Callable[[int, int], float]:
    """Gradients of the forget set and a product with the Jacobian, or members' passes.

    The members' outputs could be kept from before; here they are computed anew.
    """
    config = setting.config
    if "ensemble" in ATTRIBUTIONS[name].reads:
        return lambda queries, forgotten: config.members * queries / 3
    return lambda queries, forgotten: config.models * (2 / 3 * queries + forgotten)


def _matching_price(
    options: dict[str, Any], ahead: Callable[[int, int], float]
) -> Callable[[int, int], float]:
    """The prediction for all matched examples, then the fine-tune."""
    ratio, copies = options["retain_ratio"], options["forget_copies"]

    def price(forgotten: int, retained: int) -> float:
        kept = min(ratio * forgotten, retained)
        tuned = options["epochs"] * (copies * forgotten + kept)
        return tuned + ahead(forgotten + kept, forgotten)

    return price


def _grid(
    setting: Setting, grid: Mapping[str, tuple[Any, ...]]
) -> list[dict[str, Any]]:
    every = [
        dict(zip(grid, values, strict=True))
        for values in itertools.product(*grid.values())
    ]
    return _first(setting, every)


def _first(
    setting: Setting, every: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """As many as are asked for; 0 is all."""
    return [dict(one) for one in every[: setting.config.settings or len(every)]]


def _words(options: dict[str, Any]) -> str:
    told = ("epochs", "learning_rate", "alpha")
    return ", ".join(f"{k} {v:g}" for k, v in options.items() if k in told)
