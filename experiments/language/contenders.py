"""Who takes part, what each may try, and what a step of it costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from unlearn_jax.data.answers import Bank


class Costs(NamedTuple):
    """Value: what prices are counted in.

    Attributes:
        forget: Sequences to forget.
        retain: Sequences to retain.
        passes: Budget, in passes over the forget set.
        answers: What is said instead, for methods that take it; empty for anything.
        batch: Forgotten sequences in a step.
    """

    forget: int
    retain: int
    passes: int
    answers: Bank = ()
    batch: int = 30

    def epochs(self, price: float) -> int:
        """Passes over the forget set at so many gradients per forgotten sequence."""
        return max(1, round(self.passes / price))


class Contender(NamedTuple):
    """Description: a method in this study.

    Attributes:
        method: Its name in ``METHODS``.
        order: "first", "second", "signs" (the control of what claims to be second), or
            "control".
        options: What is fixed, given the budget.
        tries: The option that is tried, and its values, from the middle outwards; all
            have the same number of them. Empty for what has nothing to try.
        traced: Whether that option may be traced: one program serves all its values.
        rho: Whether Sophia's ρ is chosen by its win rate before anything is tried.
    """

    method: str
    order: str
    options: Callable[[Costs], dict[str, Any]]
    tries: tuple[str, tuple[float, ...]]
    traced: bool = True
    rho: bool = False


def _paired(
    method: str,
    price: float,
    rates: tuple[float, ...],
    order: str = "first",
    **options: Any,
) -> Contender:
    def own(costs: Costs) -> dict[str, Any]:
        return {"epochs": costs.epochs(price), "batch_size": costs.batch, **options}

    return Contender(method, order, own, ("learning_rate", rates))


def _newton_steps(costs: Costs) -> dict[str, Any]:
    # A gradient of the forget set, two per sample and product, and forward passes over
    # the retain set, a third of a gradient each: one before, three in a step.
    curved = {"samples": max(8, min(64, costs.forget // 2)), "max_steps": 5}
    products = 2 * curved["samples"] * curved["max_steps"]
    step = costs.forget + products + costs.retain
    return {"steps": max(1, round(costs.passes * costs.forget / step)), **curved}


def _off_the_top(costs: Costs) -> dict[str, Any]:
    # Lanczos takes 2 rank + 10 products, where conjugate gradients took five.
    own = _newton_steps(costs)
    rank, fewer = 5, max(1, own["steps"] // 4)
    return {**own, "steps": fewer, "inverse": "complement", "rank": rank}


def _adversary(costs: Costs) -> dict[str, Any]:
    # Three gradients of a batch in each step.
    steps = costs.passes * costs.forget / (3 * costs.batch)
    return {"steps": max(1, round(steps)), "batch_size": costs.batch}


def _influence(inverse: str) -> Contender:
    # A single step: a gradient of each example, and what its solver takes.
    fixed = {"inverse": inverse, "damping": 0.01, "max_steps": 10, "tol": 1e-2}
    return Contender(
        "influence_removal", "second", lambda costs: fixed, ("scale", (1, 3, 0.3, 10))
    )


_ADAM = (1e-3, 3e-3, 3e-4, 1e-2)
_SIGNS = (3e-4, 1e-3, 1e-4, 3e-3)
_NATS = ("nats", (0.03, 0.1, 0.01, 0.3))


def _answered(method: str, price: float) -> Contender:
    plain = _paired(method, price, _ADAM)

    def own(costs: Costs) -> dict[str, Any]:
        return {**plain.options(costs), "answers": costs.answers}

    return plain._replace(options=own)


CONTENDERS: Mapping[str, Contender] = {
    "identity": Contender("identity", "control", lambda costs: {}, ("", ())),
    "finetune": Contender(
        "finetune",
        "first",
        lambda costs: {
            "epochs": max(1, round(costs.passes * costs.forget / costs.retain)),
            "batch_size": 64,
        },
        ("learning_rate", _ADAM),
        traced=False,
    ),
    "graddiff": _paired("graddiff", 2, _ADAM),
    "graddiff, kl": _paired("graddiff", 2, _ADAM, retain="kl"),
    "npo": _paired("npo", 2, _ADAM),
    "simnpo": _paired("simnpo", 2, _ADAM),
    "npo, sharpness": _paired("npo_smooth", 3, _ADAM),
    "refusal": _answered("refusal", 2),
    "dpo": _answered("dpo", 3),
    "wga": _paired("wga", 2, _ADAM),
    "opt-out": _paired("opt_out", 2, _ADAM),
    "opt-out, squares": _paired("opt_out", 2, _ADAM, tether="squares"),
    "mudman": Contender(
        "mudman", "first", _adversary, ("learning_rate", (0.1, 0.3, 0.03, 1.0))
    ),
    "signs": _paired("sophia", 2, _SIGNS, "signs", variant="sign"),
    "sophia": _paired("sophia", 2.1, _SIGNS, "second")._replace(rho=True),
    "sophia, released": _paired("sophia", 2, _SIGNS, "second", variant="released"),
    "ssd": Contender("ssd", "second", lambda costs: {}, ("alpha", (3, 10, 1.5, 30))),
    "influence": _influence("cg"),
    "influence, ekfac": _influence("ekfac"),
    "retain_newton": Contender("retain_newton", "second", _newton_steps, _NATS),
    "retain_newton, complement": Contender(
        "retain_newton", "second", _off_the_top, _NATS
    ),
    "retain_newton, ekfac": Contender(
        "retain_newton",
        "second",
        lambda costs: {**_newton_steps(costs), "inverse": "ekfac"},
        _NATS,
    ),
}
"""Name of a row -> how it is run."""
SHOWN = (
    "identity",
    "graddiff",
    "npo",
    "simnpo",
    "signs",
    "sophia",
    "sophia, released",
    "ssd",
    "influence, ekfac",
    "retain_newton",
)
"""What the small scales compare."""
RHOS = tuple(0.04 * 10.0**power for power in range(8))
"""What Sophia's win rate is asked at."""
WINS = 0.3
"""Aim of the win rate: its authors say 10 to 50 %."""


def settings(name: str, costs: Costs, trials: int) -> list[dict[str, Any]]:
    """What is tried of a contender, at most so many."""
    contender = CONTENDERS[name]
    fixed, (option, values) = contender.options(costs), contender.tries
    if not option:
        return [fixed]
    return [{**fixed, option: float(value)} for value in values[:trials]]


def by_win_rate(rates: Sequence[float]) -> float:
    """The ρ of :data:`RHOS` whose win rate is nearest to :data:`WINS`."""
    gaps = [abs(rate - WINS) for rate in rates]
    return RHOS[gaps.index(min(gaps))]
