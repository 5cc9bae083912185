"""Learn and forget in any order: does least squares forget exactly, and at what price?

Question: classes come in phases and deletion requests in between (rows, users, classes,
tasks; rows learned again, labels corrected, rows that were never learned). Is a ridge
head on random features (ACU) after each of them the one that never saw the rows?
Command: ``python -m experiments.continual`` (digits, about a minute on two CPU cores);
``--data.name fashion_mnist --data.dir FOLDER`` for Fashion-MNIST (minutes).
Expect: ACU equals the ridge regression solved anew to 1e-8, bit for bit a state without
history, and refuses what it never learned, with no row stored. Heads trained by
gradients need all rows; fine-tuning and SSD stay at a visible distance from retraining.
Protocol of Zhuang et al. 2022 (ACIL, arXiv 2205.14922) and Tang et al. 2025 (ACU, arXiv
2505.12239): backbone trained on the first half of the classes, then phases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._backbone import backbone_features
from experiments._config import Config as Comparison
from experiments._config import Data, Network
from experiments._main import main, word_after
from experiments._net import load
from experiments._setting import build_model
from experiments._stream import Event, draw_stream, span, tasks_of
from experiments._stream_methods import (
    SCRATCH,
    Bench,
    Contestant,
    acu,
    naive,
    scratch,
)
from experiments._stream_run import Judges, follow
from experiments._stream_sgd import RETRAIN, read_options, sgd_heads
from experiments._stream_tables import figure_rows, tables
from experiments._study import Drawing, Findings, Note, parse, study
from experiments.frame.progress import progress
from unlearn_jax.data.batch import Dataset, take
from unlearn_jax.models import MODELS, Model
from unlearn_jax.models.random_features import random_kernel
from unlearn_jax.results.plot_continual import continual_figure
from unlearn_jax.results.run import Run
from unlearn_jax.solvers.ridge_checks import check_start
from unlearn_jax.train.recipe import Recipe


@dataclass(frozen=True)
class Config:
    """The stream, the backbone, and the heads.

    Attributes:
        scale: Which preset the values come from.
        data: Which data.
        model: The backbone; its last hidden layer gives the frozen features.
        backbone: How it is trained on the first half of the classes.
        head: How heads are trained by gradients; half the epochs when rows come in.
        options: Hyper-parameters of their methods as "method.name=value".
        width: Random features of the ridge heads, at most 16,384.
        l2: Their ridge, beside the sum over rows.
        phases: Learning phases after the base, which share the other classes.
        rounds: How often each kind of request comes.
        rows: Rows of a request for rows.
        users: Every row belongs to one of so many.
        judged: At most so many retained and forgotten rows are looked at.
        history: Compare the state with one without history after "each" event, or
            after the "last" only, which is cheaper.
        seed: Draws the stream, the backbone and the random features.
        results: Folder for runs.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    data: Data = field(default_factory=Data)
    model: Network = field(default_factory=Network)
    backbone: Recipe = field(default_factory=Recipe)
    head: Recipe = field(default_factory=Recipe)
    options: tuple[str, ...] = ()
    width: int = 512
    l2: float = 0.1
    phases: int = 2
    rounds: int = 1
    rows: int = 30
    users: int = 40
    judged: int = 500
    history: Literal["each", "last"] = "last"
    seed: int = 0
    results: Path = Path("results")


class Setting(NamedTuple):
    """Description: data and stream, before anything is trained."""

    dataset: Dataset
    model: Model
    tasks: list[np.ndarray]
    events: list[Event]


_OPTIONS = (
    "finetune.epochs=2",
    "finetune.learning_rate=0.02",
    "finetune.batch_size=128",
    "ssd.alpha=10.0",
)


def presets(data: str) -> dict[str, Config]:
    """Configurations by scale."""
    small = Config(
        data=Data(name=data),
        model=Network(name="cnn"),
        backbone=Recipe(epochs=15, batch_size=64, learning_rate=0.05),
        head=Recipe(epochs=10, batch_size=64, learning_rate=0.05),
        options=_OPTIONS,
    )
    if data in ("fashion_mnist", "fashion_mnist_coarse", "cifar10"):
        colour = data == "cifar10"
        small = replace(
            small,
            data=Data(name=data, limit=30_000),
            model=Network(name="resnet9" if colour else "cnn"),
            backbone=Recipe(
                epochs=8 if colour else 3,
                batch_size=128,
                learning_rate=0.1 if colour else 0.05,
                augment="flip_crop" if colour else "none",
            ),
            head=Recipe(epochs=4, batch_size=128, learning_rate=0.02),
            width=2048,
            phases=3,
            rounds=2,
            rows=100,
            users=200,
            judged=1000,
        )
    smoke = replace(
        small,
        scale="smoke",
        data=Data(name=data, limit=400),
        model=Network(name="mlp", width=48),
        backbone=Recipe(epochs=5, batch_size=64, learning_rate=0.05),
        head=Recipe(epochs=4, batch_size=64, learning_rate=0.05),
        width=256,
        phases=1,
        rounds=1,
        rows=12,
        users=30,
        judged=100,
        history="each",
    )
    paper = replace(
        small,
        scale="paper",
        data=Data(name=data),
        model=Network(name="resnet18"),
        backbone=Recipe(
            epochs=160,
            batch_size=128,
            learning_rate=0.1,
            augment="flip_crop" if data == "cifar10" else "none",
        ),
        head=Recipe(epochs=20, batch_size=128, learning_rate=0.02),
        width=8192,
        phases=5,
        rounds=4,
        rows=500,
        users=500,
        judged=5000,
    )
    return {"small": small, "smoke": smoke, "paper": paper}


def build(config: Config) -> Setting:
    """Load, check, draw the stream; what is refused is refused here.

    Raises:
        ValueError: data that are absent or have fewer than four classes, numbers out
            of range, options that nobody has.
    """
    check_start(config.width, 0, config.l2, jnp.float64)
    random_kernel(jax.random.key(0), 1, config.width)  # refuses the width
    read_options(config.options)
    if config.judged < 2:
        raise ValueError(f"judged is {config.judged}, expected at least 2")
    if config.model.name not in MODELS or config.model.name == "linear":
        raise ValueError(
            f"{config.model.name!r} is no backbone; choose from "
            f"{', '.join(name for name in MODELS if name != 'linear')}"
        )
    dataset = load(config.data)
    tasks = tasks_of(dataset.classes, config.phases)
    events = draw_stream(
        np.asarray(dataset.splits.train.targets),
        tasks,
        rounds=config.rounds,
        rows=config.rows,
        users=config.users,
        seed=config.seed,
    )
    model = build_model(
        Comparison(model=config.model), dataset._replace(classes=len(tasks[0]))
    )
    return Setting(dataset, model, tasks, events)


def command(arguments: Sequence[str]) -> int:
    """Parse, train the backbone, follow the stream, report."""
    jax.config.update("jax_enable_x64", True)
    words = list(arguments)
    name = word_after(words, "--data.name") or "digits"
    config = parse(
        Config, presets(name), words, "python -m experiments.continual", __doc__
    )
    setting = build(config)
    return study(
        "continual",
        config,
        setting.dataset.title,
        lambda: work(config, setting),
        model=config.model.name,
    )


def work(config: Config, setting: Setting) -> Any:
    """Train the backbone, take its features once, lead all heads through the stream."""
    train, test = setting.dataset.splits
    first = setting.events[0]
    seen = take(train, first.learn)._replace(
        targets=first.learn_labels.astype(np.int32)
    )
    own, others = backbone_features(
        setting.model, config.backbone, seen, setting.dataset.splits, seed=config.seed
    )
    key = jax.random.key(config.seed + 1)
    bench = Bench(own, setting.dataset.classes, key, config.width, config.l2)
    heads = contestants(config, bench)
    judges = Judges(
        bench,
        others,
        np.asarray(test.targets),
        config.judged,
        config.history == "each",
    )
    with progress("stream", len(setting.events) * len(heads)) as advance:
        notes = follow(judges, setting.events, heads, advance)
    notes.append(Note("ACU", "events", float(len(setting.events)), "events"))

    def show(run: Run) -> Findings:
        words = _words(config, setting, own.shape[1])
        made = tables(notes, setting.events, heads, run, words)
        return Findings([], made, _draw(notes, setting.events, heads))

    return notes, show


def contestants(config: Config, bench: Bench) -> list[Contestant]:
    """Every head, those that others refer to first."""
    return [
        scratch(bench),
        acu(bench, "gram"),
        acu(bench, "inverse"),
        naive(bench),
        *sgd_heads(bench, config.head, config.options).values(),
    ]


def _words(config: Config, setting: Setting, d: int) -> list[str]:
    phases = ", ".join(map(span, setting.tasks))
    return [
        f"Classes by phase: {phases}; {len(setting.events)} events, "
        f"{len(setting.dataset.splits.train.targets)} training rows; backbone "
        f"{config.model.name}, {d} frozen features; ridge heads: {config.width} random "
        f"features, l2 = {config.l2:g}; SGD heads: softmax on the frozen features."
    ]


def _draw(
    notes: list[Note], events: list[Event], heads: list[Contestant]
) -> list[Drawing]:
    rows = figure_rows(notes, events, heads)
    caption = (
        "The stream from left to right; grey columns are learning phases, crosses rows "
        "that were never learned, and yet subtracted. Seconds are those of requests, "
        "compiled before. Ridge heads are compared with "
        f"“{SCRATCH}”, SGD heads (logits) with “{RETRAIN}”."
    )
    return [Drawing("continual", continual_figure(rows), rows, caption)]


if __name__ == "__main__":
    main(command)
