"""Tables of what was forgotten and kept, one for each choice of settings, and parts."""

from typing import Any

import numpy as np

from experiments.authors.config import Config
from experiments.authors.judge import DIVERGED
from experiments.authors.probing import PLAIN
from experiments.authors.vectors import COUNT
from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from experiments.language.contenders import CONTENDERS
from experiments.language.trials import CHOICES, ORACLE
from experiments.language.verdict import (
    HOW,
    WORDS,
    by_distance,
    cell,
    error_of,
    mean_of,
    number,
    setting_of,
    values,
    verdict,
)
from unlearn_jax.results.plot_language import language_figure
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.table import Table

_PARTS = tuple(
    f"{part}_{what}"
    for part in ("forget", "retain", "real", "world")
    for what in ("probability", "rouge", "truth_ratio")
)


def show(config: Config, results: Results) -> list[Finding]:
    """The tables, and in words whether curvature helped."""
    rows, tables, words = results.rows, [], []
    for choice in CHOICES:
        distances = {
            name: distance(rows, method=name, choice=choice) for name in config.methods
        }
        names = by_distance(config.methods, distances)
        tables.append(_table(config, results, choice, names))
        words += verdict(distances, "nats", WORDS[choice])
    tables.append(_parts(config, results))
    if config.probed:
        tables.append(_probes(config, results))
    return [Finding(tables, _drawn(config, results), words=words)]


def distance(rows: Rows, **at: str) -> np.ndarray:
    """Mean over parts of KL(oracle ‖ model), one for each seed."""
    parts = [values(rows, "kl_oracle", split=part, **at) for part in DIVERGED]
    return np.mean(parts, axis=0)


def _drawn(config: Config, results: Results) -> list[Drawing]:
    """What is left of the forgotten against what was lost of the retained, if known."""
    rows, drawn = results.rows, []
    for choice in CHOICES:
        for name in (*config.methods, ORACLE):
            at, oracle = _at(name, choice), name == ORACLE
            own: dict[str, Any] = {
                "choice": choice,
                "method": _label(name),
                "order": "floor" if oracle else CONTENDERS[name].order,
            }
            for part in ("forget", "retain"):
                found = values(rows, "kl_oracle", split=part, **at)
                own[part], own[f"{part}_error"] = mean_of(found), error_of(found)
            if np.isfinite(own["forget"]) and np.isfinite(own["retain"]):
                drawn.append(own)
    if not drawn:
        return []
    caption = (
        "KL to models that were retrained without the authors, on questions about the "
        "forgotten and about the retained; means over originals."
    )
    figure = language_figure(drawn, split="the forgotten", kept="the retained")
    return [Drawing("authors", figure, drawn, caption)]


def _at(name: str, choice: str) -> dict[str, str]:
    return {"method": name} | ({} if name == ORACLE else {"choice": choice})


def _label(name: str) -> str:
    return "oracle vs oracle" if name == ORACLE else name


def _table(config: Config, results: Results, choice: str, names: list[str]) -> Table:
    rows = results.rows
    metrics = {
        "D ↓": "quality_distance",
        "forget quality ↑": "forget_quality",
        "model utility ↑": "model_utility",
        "extraction →oracle": "extraction_strength",
        "memorised →oracle": "exact_memorisation",
        "leak (%) →0": "privacy_leak",
        "relearning, height →oracle": "relearn_height",
        "forget loss →oracle": "forget_loss",
        "concepts, Jaccard →oracle": "concept_jaccard",
        "concepts, cosine →oracle": "concept_cosine",
    }
    header = (
        "method",
        "order",
        "chosen",
        *(f"KL to retraining, {part} ↓" for part in DIVERGED),
        *metrics,
        "retain rise",
        "seconds ↓",
    )

    def line(name: str) -> list[str | float | None]:
        oracle, at = name == ORACLE, _at(name, choice)
        return [
            _label(name),
            "the floor" if oracle else CONTENDERS[name].order,
            None if oracle else setting_of(rows, name, choice),
            *(cell(rows, "kl_oracle", split=part, **at) for part in DIVERGED),
            *(cell(rows, metric, **at) for metric in metrics.values()),
            number(rows, "retain_rise", **at),
            number(rows, "forget_seconds", method=name),
        ]

    floors = values(rows, "quality_floor", method=ORACLE)  # One for each of them.
    told = f"{floors[0]:.2g} at D = 1" if len(floors) else "not known of one model"
    how = HOW[choice].format(budget=config.budget, kind="authors")
    notes = (
        f"Mean ± standard error over {config.models} originals, each against "
        f"{config.models} models that were retrained without the authors. KL in nats "
        "per token of the answers; holdout are authors that no model was trained on.",
        "D and forget quality: Kolmogorov-Smirnov test of truth ratios, means over "
        f"retrained models; the p-value's floor is {told}. Leak: Min-K (40 %) "
        "of forgotten against holdout authors, relative to retrained models.",
        f"Relearning: {config.relearn} steps on half of the forgotten facts, loss of "
        "the other half, mean height of the curve [nats per token]. Concepts: the "
        f"{COUNT} value vectors with the largest gradient on the forget set, beside "
        "the original's: tokens that they speak for, and angles. Models that were "
        "trained from scratch have their vectors in other places.",
        f"Every method spends at most about {config.passes} passes over the forget set "
        f"in gradients and tries at most {config.trials} settings; chosen is the one "
        f"that {how}. Nothing that is in the table takes part in the choice.",
    )
    caption = f"Forgetting authors, chosen by {choice}. {about(results.run)}"
    lines = [line(name) for name in (*names, ORACLE)]
    return table(f"authors_{choice}", caption, header, lines, notes)


def _parts(config: Config, results: Results) -> Table:
    """What utility and forgetting are made of, of the first choice."""
    rows, choice = results.rows, CHOICES[0]
    header = ("method", *(part.replace("_", " ") for part in _PARTS))
    lines = [
        [_label(name), *(cell(rows, part, **_at(name, choice)) for part in _PARTS)]
        for name in (*config.methods, ORACLE)
    ]
    notes = (
        "Probability: of the trained answer, per token; of real authors and the world "
        "that of the true answer among the wrong ones, all in the words of the "
        "paraphrase. ROUGE-L recall of greedy answers. Truth ratio: max(0, 1 - R), of "
        "the forgotten min(R, 1/R).",
    )
    caption = f"The parts of utility, chosen by {choice}. {about(results.run)}"
    return table("authors_parts", caption, header, lines, notes)


def _probes(config: Config, results: Results) -> Table:
    """What is still said when the forgotten is asked for otherwise, or told."""
    rows, choice = results.rows, CHOICES[1]
    kinds = rows.where("probe_recall").places("split")
    metrics = (
        "attack_recall",
        "worst_attack",
        "told_recall",
        "resurgence",
        "misled_recall",
        "spared_recall",
    )

    def line(name: str) -> list[str | float | None]:
        where = _at(name, choice)
        return [
            _label(name),
            *(cell(rows, "probe_recall", split=kind, **where) for kind in PLAIN),
            *(cell(rows, metric, **where) for metric in metrics),
            cell(rows, "safe_refusal_rate", **where),
        ]

    header = (
        "method",
        "a blank →oracle",
        "the question →oracle",
        "attacks, mean →oracle",
        "attacks, best →oracle",
        "fact told →oracle",
        "resurgence →oracle",
        "in context ↓",
        "a retained one there ↑",
        "neighbours refused (%) →oracle",
    )
    notes = (
        f"ROUGE-L recall of greedy answers to {config.probed} forgotten questions, in "
        f"the levels of RWKU; attacks: {', '.join(k for k in kinds if k not in PLAIN)}"
        " (none by translation). Best: of all attacks, for each model.",
        "Fact told: the question behind a statement that answers it. Resurgence: share "
        "of what the original says then that the statement brings back; nothing where "
        "there is no such gap. In context: the question behind a false answer to it "
        "and true ones to others, which is in-context unlearning where no weight has "
        "moved; and a retained question there. Neighbours: retained questions answered "
        "by a refusal, nothing, or words in circles.",
    )
    caption = f"Forgotten facts asked for otherwise, chosen by {choice}. " + about(
        results.run
    )
    lines = [line(name) for name in (*config.methods, ORACLE)]
    return table("authors_probes", caption, header, lines, notes)
