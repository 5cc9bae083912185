"""One table: divergences from retraining and from the truth, nearest first."""

import math

import numpy as np

from experiments.frame.findings import Finding, about, table
from experiments.frame.study import Results
from experiments.markov.config import Config
from experiments.markov.contenders import CONTENDERS
from experiments.markov.measure import ORACLE, TRUTH
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.table import Table


def show(config: Config, results: Results) -> list[Finding]:
    """The table, and in words who is nearest of first and of second order."""
    rows = results.rows
    names = sorted(config.methods, key=lambda name: distance(rows, name))
    words = [f"{_best(rows, names, order)}" for order in ("first", "second", "signs")]
    return [Finding([_table(config, results, names)], words=[w for w in words if w])]


def splits(rows: Rows) -> list[str]:
    """Names of the chains, the retained one first."""
    return rows.where(f"kl_{TRUTH}").places("split")


def distance(rows: Rows, name: str) -> float:
    """Mean over chains and seeds of KL(oracle ‖ model); infinite where not finite."""
    values = _values(rows, f"kl_{ORACLE}", method=name)
    mean = float(np.mean(values)) if len(values) else math.inf
    return mean if math.isfinite(mean) else math.inf


def _values(rows: Rows, metric: str, **at: str) -> np.ndarray:
    return np.array([row.value for row in rows.where(metric, **at)], float)


def _cell(rows: Rows, metric: str, **at: str) -> str | None:
    values = _values(rows, metric, **at)
    if not len(values):
        return None
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return mean_and_error(float(values.mean()), float(error))


def _best(rows: Rows, names: list[str], order: str) -> str:
    own = [name for name in names if CONTENDERS[name].order == order]
    if not own:
        return ""
    told = {"signs": "The control, signs of momentum"}.get(order)
    told = told or f"Nearest to retraining of {order} order: {own[0]}"
    return f"{told}, {distance(rows, own[0]):.3g} nats per step over all chains."


def _table(config: Config, results: Results, names: list[str]) -> Table:
    rows, chains = results.rows, splits(results.rows)
    header = (
        "method",
        "order",
        "chosen",
        *(f"KL to retraining, {chain} ↓" for chain in chains),
        f"KL to truth, {chains[0]} ↓",
        "forget loss →oracle",
        "retain rise",
        "seconds ↓",
    )

    def line(name: str) -> list[str | float | None]:
        first = CONTENDERS[name].order if name in CONTENDERS else "the floor"
        at = {"method": name}
        one = [
            rows.where(metric, **at)
            for metric in ("chosen", "retain_rise", "forget_seconds")
        ]
        chosen, rise, seconds = (
            float(own[0].value or 0) if own else None for own in one
        )
        option = CONTENDERS[name].tries[0] if name in CONTENDERS else ""
        return [
            "oracle vs oracle" if name == ORACLE else name,
            first,
            f"{option}={chosen:g}" if chosen is not None else None,
            *(_cell(rows, f"kl_{ORACLE}", split=c, **at) for c in chains),
            _cell(rows, f"kl_{TRUTH}", split=chains[0], **at),
            _cell(rows, "forget_loss", **at),
            rise,
            seconds,
        ]

    notes = (
        f"Nats per step on {config.tests} test sequences of each chain; mean ± "
        f"standard error over {config.models} originals, each against {config.models} "
        "retrained models.",
        f"Every method spends about {config.passes} passes over the forget set in "
        f"gradients and tries at most {config.trials} settings; chosen is the one that "
        "forgets most in training with a rise of the retain loss of at most "
        f"{config.budget:g} nats. No test sequence, truth or retrained model takes "
        "part in the choice.",
        "Sorted by the mean of the columns of retraining. Losses are of training sets, "
        "per step.",
    )
    caption = f"Forgetting chains. {about(results.run)}"
    lines = [line(name) for name in (*names, ORACLE)]
    return table("markov", caption, header, lines, notes)
