"""Two tables, one for each choice of settings: divergences, nearest first."""

import numpy as np

from experiments.frame.findings import Finding, about, table
from experiments.frame.study import Results
from experiments.language.contenders import CONTENDERS
from experiments.language.trials import CHOICES, ORACLE
from experiments.language.verdict import (
    HOW,
    WORDS,
    by_distance,
    cell,
    number,
    setting_of,
    values,
    verdict,
)
from experiments.markov.config import Config
from experiments.markov.measure import TRUTH
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.table import Table


def show(config: Config, results: Results) -> list[Finding]:
    """The tables, and in words whether curvature helped."""
    rows = results.rows
    tables, words = [], []
    for choice in CHOICES:
        distances = {
            name: distance(rows, method=name, choice=choice) for name in config.methods
        }
        names = by_distance(config.methods, distances)
        tables.append(_table(config, results, choice, names))
        words += verdict(distances, "nats", WORDS[choice])
    return [Finding(tables, words=words)]


def splits(rows: Rows) -> list[str]:
    """Names of the chains, the retained one first."""
    return rows.where(f"kl_{TRUTH}").places("split")


def distance(rows: Rows, **at: str) -> np.ndarray:
    """Mean over chains of KL(oracle ‖ model), one for each seed."""
    parts = [values(rows, f"kl_{ORACLE}", split=s, **at) for s in splits(rows)]
    return np.mean(parts, axis=0)


def _table(config: Config, results: Results, choice: str, names: list[str]) -> Table:
    rows, chains = results.rows, splits(results.rows)
    header = (
        "method",
        "order",
        "chosen",
        *(f"KL to retraining, {chain} ↓" for chain in chains),
        f"KL to truth, {chains[0]} ↓",
        "forget loss →oracle",
        "retain rise",
        "not clipped",
        "seconds ↓",
    )

    def line(name: str) -> list[str | float | None]:
        oracle = name == ORACLE
        at = {"method": name} if oracle else {"method": name, "choice": choice}
        return [
            "oracle vs oracle" if oracle else name,
            "the floor" if oracle else CONTENDERS[name].order,
            None if oracle else setting_of(rows, name, choice),
            *(cell(rows, f"kl_{ORACLE}", split=c, **at) for c in chains),
            cell(rows, f"kl_{TRUTH}", split=chains[0], **at),
            cell(rows, "forget_loss", **at),
            number(rows, "retain_rise", **at),
            number(rows, "win_rate", **at),
            number(rows, "forget_seconds", method=name),
        ]

    how = HOW[choice].format(budget=config.budget, kind="chains")
    notes = (
        f"Nats per step on {config.tests} test sequences of each chain; mean ± "
        f"standard error over {config.models} originals, each against {config.models} "
        "retrained models.",
        f"Every method spends at most about {config.passes} passes over the forget set "
        f"in gradients and tries at most {config.trials} settings; chosen is the one "
        f"that {how}. No test sequence of a chain that is reported, no truth and no "
        "retrained model takes part in the choice.",
        "Sorted by the mean of the columns of retraining. Losses are of training sets, "
        "per step. Not clipped: share of coordinates on which curvature decided; "
        "sophia's rho was chosen by it, on one original.",
    )
    caption = f"Forgetting chains, chosen by {choice}. {about(results.run)}"
    lines = [line(name) for name in (*names, ORACLE)]
    return table(f"markov_{choice}", caption, header, lines, notes)
