"""Do influence functions predict retraining, where theory says that they must?

Question: softmax regression has one minimum, so what leaving an example out does to a
test loss can be known to machine precision. How well do the solvers predict it?
Command: ``python -m experiments.truth`` (digits, about a minute on two CPU cores);
``--data.name fashion_mnist --data.dir FOLDER`` for Fashion-MNIST (minutes).
Expect: leave-one-out correlation at least 0.88 and linear datamodelling score at least
0.80 with an exact inverse and with conjugate gradients: what dattri reports for
logistic regression on MNIST (Deng et al. 2024, arXiv 2410.04555).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._refit import Truth, matrix_product, minimise, retrain
from experiments._study import Drawing, Findings, Note, about, parse, study, table
from experiments.frame.command import main
from experiments.frame.config import word_after
from experiments.frame.nets import timed_once, to_double, written_out
from experiments.frame.problem import Data, load
from experiments.frame.progress import progress
from unlearn_jax import tree
from unlearn_jax.attribution.influence import influence_on_outputs
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.data.batch import take
from unlearn_jax.evaluation.cost import measured
from unlearn_jax.evaluation.datamodelling_score import (
    Score,
    group_effects,
    leave_one_out_score,
    linear_datamodelling_score,
)
from unlearn_jax.models import MODELS
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.plot_curvature import truth_figure
from unlearn_jax.results.run import Run
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.types import Batch, Params

BARS = {"loo_pearson": 0.88, "lds": 0.80}
INVERSES = ("dense", "cg")
_MOST_PARAMETERS = 12_000


@dataclass(frozen=True)
class Config:
    """What to predict, and what to hold it against.

    Attributes:
        scale: Which preset the values come from.
        data: Which data; a limit keeps the dense inverse affordable.
        l2: Coefficient of half the squared norm of the parameters in the objective.
        leave_outs: Training examples to leave out, one by one (0: all).
        queries: Test examples whose loss is predicted.
        subsets: Models retrained on random subsets.
        share: Size of a subset, as a share of the training examples.
        bootstrap: Resamples for the standard errors.
        seed: Draws examples and subsets.
        results: Folder for runs.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    data: Data = field(default_factory=Data)
    l2: float = 0.01
    leave_outs: int = 500
    queries: int = 100
    subsets: int = 50
    share: float = 0.5
    bootstrap: int = 200
    seed: int = 0
    results: Path = Path("results")


class Setting(NamedTuple):
    """Description: data on the device and the objective."""

    title: str
    objective: Objective
    start: Params
    train: Batch
    queries: Batch
    leave_outs: np.ndarray


def presets(data: str) -> dict[str, Config]:
    """Configurations by scale."""
    limit = 0 if data == "digits" else 1000
    small = Config(data=Data(name=data, limit=limit))
    smoke = replace(
        small,
        scale="smoke",
        data=Data(name=data, limit=400),
        leave_outs=100,
        queries=40,
        subsets=20,
    )
    paper = replace(small, scale="paper", leave_outs=0, queries=200)
    return {"small": small, "smoke": smoke, "paper": paper}


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: an unknown or absent data set, or numbers that make no sense.
    """
    if not config.l2 > 0:
        raise ValueError(f"l2 is {config.l2}; a unique minimum needs it positive")
    if not 0 < config.share < 1 or min(config.queries, config.subsets) < 3:
        raise ValueError(
            f"expected 0 < share < 1 and at least 3 queries and subsets, got share "
            f"{config.share}, {config.queries} queries, {config.subsets} subsets"
        )
    dataset = load(config.data)
    train, test = dataset.splits
    n, tests = len(train.targets), len(test.targets)
    if config.queries > tests or not (
        config.leave_outs == 0 or 3 <= config.leave_outs <= n
    ):
        raise ValueError(
            f"{dataset.title} has {n} training and {tests} test examples; queries is "
            f"{config.queries} and leave_outs {config.leave_outs} (0: all, or 3 to {n})"
        )
    shape = train.inputs.shape[1:]
    size = (int(np.prod(shape)) + 1) * dataset.classes
    if size > _MOST_PARAMETERS:
        raise ValueError(
            f"a dense inverse of {size} parameters is too large, at most "
            f"{_MOST_PARAMETERS}; take digits or fashion_mnist"
        )
    model = MODELS["linear"](shape, dataset.classes, dtype=jnp.float64)
    random = np.random.default_rng(config.seed)
    left_out = np.sort(random.permutation(n)[: config.leave_outs or n])
    asked = take(test, np.sort(random.permutation(tests)[: config.queries]))
    return Setting(
        dataset.title,
        bind(model, {}, cross_entropy, config.l2),
        model.init(jax.random.key(0)).params,
        to_double(train),
        to_double(asked),
        left_out,
    )


def command(arguments: Sequence[str]) -> int:
    """Parse, retrain, predict, report."""
    jax.config.update("jax_enable_x64", True)
    words = list(arguments)
    name = word_after(words, "--data.name") or "digits"
    config = parse(Config, presets(name), words, "python -m experiments.truth", __doc__)
    setting = build(config)
    return study(
        "truth", config, setting.title, lambda: work(config, setting), model="linear"
    )


def work(config: Config, setting: Setting) -> Any:
    """Train, retrain, predict and compare."""
    objective, train, queries = setting.objective, setting.train, setting.queries
    with progress("train on everything", 1):
        first = jax.jit(lambda s, d: minimise(objective, s, d))(setting.start, train)
        params = jax.block_until_ready(first.params)
    with progress(f"invert the Hessian ({tree.size(params)} parameters)", 1):
        matrix, dense_cost = timed_once(
            lambda p, d: dense_inverse(objective, p, d), params, train
        )
    without, masks = weights_of(config, setting)
    truth = retrain(objective, params, train, queries, without, masks, matrix)
    scores, costs = {}, {}
    for name in INVERSES:
        with progress(f"predict with {name}", 1):
            found, cost = measured(
                lambda p, d, q, m, name=name: influence_on_outputs(
                    objective, p, d, q, None, inverse(name, objective, p, d, m)
                ),
                params,
                train,
                queries,
                matrix,
            )
            scores[name] = np.asarray(found)
            costs[name] = (dense_cost if name == "dense" else 0.0, cost.seconds)
    notes, lines = [], []
    for name, found in scores.items():
        figures = compare(config, setting, truth, found)
        for metric, (value, error) in figures.items():
            notes.append(Note(name, metric, value, "1"))
            notes.append(Note(name, f"{metric}_stderr", error, "1"))
        notes.append(Note(name, "prepare_seconds", costs[name][0], "s"))
        notes.append(Note(name, "predict_seconds", costs[name][1], "s"))
        cells = [mean_and_error(*figures[metric]) for metric in figures]
        met = all(figures[metric][0] >= bar for metric, bar in BARS.items())
        prepare = costs[name][0] if name == "dense" else None
        lines.append([name, *cells, prepare, costs[name][1], "yes" if met else "no"])
    notes.append(Note("retrained", "gradient_norm", truth.slope, "1"))

    def show(run: Run) -> Findings:
        return Findings(
            [], [_table(config, truth, lines, run)], _draw(setting, truth, scores)
        )

    return notes, show


def weights_of(config: Config, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Example weights, a row for each model: one left out, and random subsets."""
    n = setting.train.weights.shape[0]
    without = np.ones((len(setting.leave_outs), n))
    without[np.arange(len(without)), setting.leave_outs] = 0
    random = np.random.default_rng(config.seed + 1)
    masks = np.zeros((config.subsets, n))
    for row in masks:
        row[random.permutation(n)[: max(1, round(config.share * n))]] = 1
    return without, masks


def compare(
    config: Config, setting: Setting, truth: Truth, scores: np.ndarray
) -> dict[str, Score]:
    """Correlations with the truth and their standard errors by bootstrap.

    Queries are resampled together with what was left out (or the subsets).
    """
    random = np.random.default_rng(config.seed + 2)
    drawn = {"bootstrap": config.bootstrap, "seed": random}
    changes = (truth.without - truth.full).T
    out = setting.leave_outs
    return {
        "loo_pearson": leave_one_out_score(scores, out, changes, **drawn),
        "loo_spearman": leave_one_out_score(scores, out, changes, ranks=True, **drawn),
        "lds": linear_datamodelling_score(
            group_effects(scores, truth.masks), truth.subsets.T, **drawn
        ),
    }


def dense_inverse(objective: Objective, params: Params, train: Batch) -> Any:
    """The inverse of the Hessian, written out."""
    matrix = hessian(objective, params, train)
    written = written_out(matrix, block_size=256)
    eye = jnp.eye(len(written), dtype=written.dtype)
    factor = jax.scipy.linalg.cho_factor(written)
    return jax.scipy.linalg.cho_solve(factor, eye)


def inverse(
    name: str, objective: Objective, params: Params, train: Batch, matrix: Any
) -> Any:
    """The map v ↦ H⁻¹ v, by the matrix or by conjugate gradients."""
    if name == "dense":
        return matrix_product(matrix, params)
    operator = hessian(objective, params, train)
    return lambda v: conjugate_gradient(operator, v, tol=1e-8, max_steps=2000).value


def _table(config: Config, truth: Truth, lines: list[Any], run: Run) -> Any:
    header = (
        "inverse",
        "leave-one-out, Pearson ↑",
        "leave-one-out, Spearman ↑",
        "LDS ↑",
        "prepare (s) ↓",
        "predict (s) ↓",
        "bar met",
    )
    notes = (
        f"Softmax regression in float64, l2 = {config.l2:g}; {len(truth.without)} "
        f"examples left out one by one, {len(truth.full)} test losses, "
        f"{len(truth.subsets)} subsets with a share of {config.share:g}.",
        f"Retrained by Newton's method to gradient norms of at most {truth.slope:.1e}.",
        "Correlations are means over test examples; ± bootstrap standard error over "
        "test examples and retrained models.",
        f"Bar: leave-one-out Pearson ≥ {BARS['loo_pearson']:g}, LDS ≥ {BARS['lds']:g}, "
        "dattri's values for logistic regression on MNIST (arXiv 2410.04555).",
    )
    caption = f"Predicted against retrained test losses. {about(run)}"
    return table("truth", caption, header, lines, notes)


def _draw(
    setting: Setting, truth: Truth, scores: dict[str, np.ndarray]
) -> list[Drawing]:
    found = scores["dense"]
    changes = (truth.without - truth.full).T
    query = int(np.argsort(np.std(changes, axis=1))[len(changes) // 2])
    panels = {
        "one example left out": (
            -found[query, setting.leave_outs],
            changes[query],
        ),
        "random subsets": (
            (found @ (truth.masks - truth.masks.mean(0)).T)[query],
            truth.subsets[:, query] - truth.subsets[:, query].mean(),
        ),
    }
    rows = [
        {"panel": panel, "predicted": float(x), "retrained": float(y)}
        for panel, (a, b) in panels.items()
        for x, y in zip(a, b, strict=True)
    ]
    caption = (
        "Predicted against true change of one test example's loss (the one of median "
        "spread), with the exact inverse; the line is equality. Subsets: both without "
        "their mean."
    )
    return [Drawing("truth", truth_figure(rows), rows, caption)]


if __name__ == "__main__":
    main(command)
