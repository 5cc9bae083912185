"""Is least squares still exact after a thousand requests, however ill-conditioned?

Question: rows and classes leave, come and come back. Does ridge regression as carried
along, as sums, as an inverse, as both, equal the one solved anew from the rows left?
Command: ``python -m experiments.exactness`` (digits, minutes on two CPU cores);
``--scale paper --data.dir FOLDER`` for Fashion-MNIST, 2,048 random features of a
trained CNN and 1,000 requests (about a quarter of an hour).
Expect: sums have no history, bit for bit, and their solution is the true one to the
last digits, closer than a fresh solve in float64. The inverse alone drifts, the faster
the worse the condition; with the sums beside it the drift is seen and repaired.
The truth is a solution in integers with a proven error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._config import Config as Comparison
from experiments._config import Data, Network
from experiments._exactness_forms import Bench
from experiments._exactness_run import follow
from experiments._exactness_stream import Request, draw_requests
from experiments._exactness_tables import figure_rows, tables
from experiments._main import main
from experiments._net import load
from experiments._setting import build_model
from experiments._study import Drawing, Findings, parse, study
from experiments.frame.backbone import backbone_features
from unlearn_jax.data.batch import Dataset
from unlearn_jax.models import MODELS
from unlearn_jax.models.random_features import directions, expand, random_kernel
from unlearn_jax.results.plot_exactness import exactness_figure
from unlearn_jax.results.run import Run
from unlearn_jax.solvers.ridge_checks import check_start
from unlearn_jax.train.recipe import Recipe

PIXELS = "pixels"


@dataclass(frozen=True)
class Config:
    """The rows, the requests, and how often they are looked at.

    Attributes:
        scale: Which preset the values come from.
        data: Which data.
        model: The backbone whose last hidden layer is frozen; "pixels": none.
        backbone: How it is trained, on all training rows.
        width: Random features, at most 16,384.
        l2s: Ridges, beside the sum over rows; the sums serve all of them.
        single_l2s: Ridges that float32 is tried with.
        requests: Requests in a row.
        most: Most rows of one that is not for a class.
        tested: Test rows that are predicted.
        watch: Compare the carried forms with the sums each so many requests.
        checks: Compare all with the reference so often, at equal distances, and at
            the start.
        kept_last: The last requests that sums and inverse, kept together, follow.
        single_last: The last requests that float32 follows.
        seed: Draws requests, backbone and random features.
        results: Folder for runs.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    data: Data = field(default_factory=Data)
    model: Network = field(default_factory=lambda: Network(name="cnn"))
    backbone: Recipe = field(
        default_factory=lambda: Recipe(epochs=8, batch_size=64, learning_rate=0.05)
    )
    width: int = 512
    l2s: tuple[float, ...] = (1.0, 1e-3, 1e-6)
    single_l2s: tuple[float, ...] = (1e4, 100.0, 1.0, 1e-3, 1e-6)
    requests: int = 300
    most: int = 100
    tested: int = 300
    watch: int = 5
    checks: int = 4
    kept_last: int = 300
    single_last: int = 300
    seed: int = 0
    results: Path = Path("results")


class Setting(NamedTuple):
    """Description: data and requests, before anything is trained."""

    dataset: Dataset
    start: np.ndarray
    requests: list[Request]


PRESETS = {
    "small": Config(),
    "smoke": Config(
        scale="smoke",
        data=Data(limit=400),
        model=Network(name=PIXELS),
        width=64,
        requests=60,
        most=16,
        checks=2,
        kept_last=60,
        single_last=40,
    ),
    "paper": Config(
        scale="paper",
        data=Data(name="fashion_mnist", limit=20_000),
        backbone=Recipe(epochs=2, batch_size=128, learning_rate=0.05),
        width=2048,
        requests=1000,
        most=500,
        tested=1000,
        watch=20,
        checks=3,
        kept_last=100,
        single_last=100,
    ),
}


def build(config: Config) -> Setting:
    """Load, check, draw the requests; what is refused is refused here.

    Raises:
        ValueError: data that are absent, numbers out of range.
    """
    if not config.l2s:
        raise ValueError("l2s is empty, expected at least one ridge")
    for l2 in (*config.l2s, *config.single_l2s):
        check_start(config.width, 0, l2, jnp.float64)
    random_kernel(jax.random.key(0), 1, config.width)  # refuses the width
    name = config.model.name
    if name != PIXELS and (name not in MODELS or name == "linear"):
        known = [PIXELS, *(name for name in MODELS if name != "linear")]
        raise ValueError(f"{name!r} is no backbone; choose from {', '.join(known)}")
    counts = (config.watch, config.checks, config.tested)
    spans = (config.kept_last, config.single_last)
    if min(counts) < 1 or min(spans) < 0 or config.checks > config.requests:
        raise ValueError(
            f"expected watch, checks and tested of at least 1, no more checks than "
            f"requests, and kept_last and single_last of at least 0, got "
            f"{', '.join(map(str, (*counts, *spans)))}"
        )
    dataset = load(config.data)
    start, requests = draw_requests(
        np.asarray(dataset.splits.train.targets),
        requests=config.requests,
        most=config.most,
        seed=config.seed,
    )
    return Setting(dataset, start, requests)


def command(arguments: Sequence[str]) -> int:
    """Parse, train the backbone, follow the requests, report."""
    jax.config.update("jax_enable_x64", True)
    config = parse(
        Config, PRESETS, list(arguments), "python -m experiments.exactness", __doc__
    )
    setting = build(config)
    return study(
        "exactness",
        config,
        setting.dataset.title,
        lambda: work(config, setting),
        model=config.model.name,
    )


def work(config: Config, setting: Setting) -> Any:
    """Take the rows once, lead all forms through the requests."""
    own, others = features(config, setting.dataset)
    kernel = random_kernel(jax.random.key(config.seed + 1), own.shape[1], config.width)
    rows, test = (expanded(part, kernel) for part in (own, others[: config.tested]))
    last = config.requests
    bench = Bench(
        rows,
        np.asarray(setting.dataset.splits.train.targets),
        setting.dataset.classes,
        test.astype(np.float64),
        config.l2s,
        config.single_l2s,
        config.watch,
        tuple(round(last * (i + 1) / config.checks) for i in range(config.checks)),
        max(last - config.kept_last, 0),
        max(last - config.single_last, 0),
    )
    notes = follow(bench, setting.start, setting.requests)
    words = _words(config, setting, own.shape[1])

    def show(run: Run) -> Findings:
        drawn = figure_rows(notes)
        caption = (
            "Relative error of the head and of its predictions over the requests. "
            "Dots: against the reference; lines: against the sums; crosses: refused "
            "requests, after which the inverse was made anew."
        )
        drawing = Drawing("exactness", exactness_figure(drawn), drawn, caption)
        return Findings([], tables(notes, config.l2s, run, words), [drawing])

    return notes, show


def features(config: Config, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Frozen features of training and test examples; pixels are their own."""
    train, test = dataset.splits
    if config.model.name == PIXELS:
        flat = [np.asarray(part.inputs) for part in (train, test)]
        return flat[0].reshape(len(flat[0]), -1), flat[1].reshape(len(flat[1]), -1)
    model = build_model(Comparison(model=config.model), dataset)
    return backbone_features(
        model, config.backbone, train, dataset.splits, seed=config.seed
    )


def expanded(given: np.ndarray, kernel: Any) -> np.ndarray:
    """Random features in float32, which holds their 20 digits."""
    unit, step = directions(given), 2048
    parts = [
        np.asarray(expand(unit[first : first + step], kernel)).astype(np.float32)
        for first in range(0, len(unit), step)
    ]
    return np.concatenate(parts)


def _words(config: Config, setting: Setting, d: int) -> list[str]:
    sizes = [len(r.forget) + len(r.learn) for r in setting.requests]
    return [
        f"{len(setting.requests)} requests of {min(sizes)} to {max(sizes)} rows in a "
        f"row; {len(setting.start)} training rows, {int(setting.start.sum())} of them "
        f"within at the start; {config.width} random features of {d} from the "
        f"{config.model.name}. Sums and inverse kept together follow the last "
        f"{min(config.kept_last, config.requests)}, float32 the last "
        f"{min(config.single_last, config.requests)}."
    ]


if __name__ == "__main__":
    main(command)
