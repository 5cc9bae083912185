"""What does the state of analytic unlearning reveal of rows, deleted and not?

Question: a ridge head keeps the sums G = Σ x xᵀ and Q = Σ x yᵀ, no rows. What can be
read from them: by whoever saw the state before and after a deletion (the rows, their
labels, the images behind them), and by whoever holds the present state and a guess
(was it learnt)? What does noise with (epsilon, delta) change, and what does it cost?
Command: ``python -m experiments.state_privacy`` (digits, below a minute on two CPU
cores); ``--data.name fashion_mnist --data.dir FOLDER`` for Fashion-MNIST (minutes).
Expect: one deleted row comes back to rounding, and with the kernel its image; so do
several rows, as long as they are few for the zeros of a ReLU. The present state tells
rows within from others when rows are few for each feature; it tells a deleted row no
better than chance, for it is bit for bit the state that never had it. Noise for any
usual epsilon ruins the reconstruction.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from experiments._config import Data
from experiments._main import main, word_after
from experiments._net import load
from experiments._state_privacy import (
    Examples,
    Guessed,
    Measured,
    Setting,
    learn_all,
    memberships,
    prepare_release,
    reconstruct,
    release,
)
from experiments._state_privacy_tables import drawings, notes_of, tables
from experiments._study import Findings, parse, study
from experiments.frame.progress import progress
from unlearn_jax.models.random_features import LARGEST_WIDTH, directions
from unlearn_jax.results.run import Run


@dataclass(frozen=True)
class Config:
    """What to learn, what to delete, and how the attackers work.

    Attributes:
        scale: Which preset the values come from.
        data: Which data; pixels are the features.
        width: Random features of the state that is reconstructed from; at least
            twice the pixels, or images are not determined.
        deleted: Rows deleted at once (count), one reconstruction each.
        trials: Deletions of each size.
        starts: Rotations from which rows are separated.
        steps: Steps from each.
        ratios: Rows within for each random feature, one membership attack each.
        l2: Ridge, beside the sum over rows.
        epsilons: Privacy losses of two releases together, by size; empty: no noise.
        delta: Probability with which each may fail.
        noise_width: Random features of the state that gets noise.
        draws: Repetitions of each noise.
        seed: Draws kernels, rows and noise.
        results: Folder for runs.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    data: Data = field(default_factory=Data)
    width: int = 256
    deleted: tuple[int, ...] = (1, 2, 4, 8, 16)
    trials: int = 4
    starts: int = 16
    steps: int = 500
    ratios: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    l2: float = 0.1
    epsilons: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 64.0)
    delta: float = 1e-5
    noise_width: int = 256
    draws: int = 5
    seed: int = 0
    results: Path = Path("results")


def presets(data: str) -> dict[str, Config]:
    """Configurations by scale."""
    small = Config(data=Data(name=data))
    if data != "digits":
        small = replace(
            small,
            data=Data(name=data, limit=6000),
            width=1792,
            deleted=(1, 4, 16),
            trials=2,
        )
    smoke = replace(
        small,
        scale="smoke",
        data=Data(name=data, limit=600),
        width=192,
        deleted=(1, 4),
        trials=2,
        starts=4,
        steps=300,
        ratios=(1.0, 4.0),
        epsilons=(8.0,),
        noise_width=192,
        draws=2,
    )
    paper = replace(small, scale="paper", trials=20, draws=20)
    return {"small": small, "smoke": smoke, "paper": paper}


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: an unknown or absent data set, or numbers that make no sense.
    """
    dataset = load(config.data)
    train, test = dataset.splits
    n = len(train.targets)
    group = n // 4
    within = n - 2 * group
    most = max(config.deleted, default=0)
    widths = [round(within / ratio) for ratio in config.ratios if ratio > 0]
    if (
        min(config.deleted, default=0) < 1
        or most > min(config.width, group)
        or len(set(config.deleted)) < len(config.deleted)
    ):
        raise ValueError(
            f"deleted is {config.deleted}; expected different counts of 1 to "
            f"{min(config.width, group)} (the width, the rows to delete)"
        )
    if len(widths) < max(len(config.ratios), 1) or not (
        min(widths) >= 2 and max(widths) <= LARGEST_WIDTH
    ):
        raise ValueError(
            f"ratios is {config.ratios}; {within} rows stay, so expected numbers of "
            f"{within / LARGEST_WIDTH:.2g} to {within // 2}"
        )
    counts = (config.trials, config.draws, config.starts, config.steps)
    if min(counts) < 1 or not (config.l2 > 0 and 0 < config.delta < 1):
        raise ValueError(
            f"expected trials, draws, starts and steps of at least 1, l2 above 0 and "
            f"delta between 0 and 1, got {counts}, {config.l2} and {config.delta}"
        )
    if any(not 0 < e < math.inf for e in config.epsilons):
        raise ValueError(f"epsilons is {config.epsilons}; expected positive numbers")
    for name in ("width", "noise_width"):
        if not 1 <= getattr(config, name) <= LARGEST_WIDTH:
            raise ValueError(f"{name} is {getattr(config, name)}, not in 1 to 16384")
    kinds = np.eye(dataset.classes)

    def examples(batch: Any, chosen: np.ndarray) -> Examples:
        unit = directions(np.asarray(batch.inputs)[chosen])
        return Examples(unit, kinds[np.asarray(batch.targets)[chosen]])

    random = np.random.default_rng(config.seed)
    order = random.permutation(n)
    return Setting(
        dataset.title,
        examples(train, order[2 * group :]),
        examples(train, order[:group]),
        examples(train, order[group : 2 * group]),
        examples(test, np.arange(len(test.targets))),
        tuple(train.inputs.shape[1:]),
    )


def command(arguments: Sequence[str]) -> int:
    """Parse, attack, report."""
    jax.config.update("jax_enable_x64", True)
    words = list(arguments)
    name = word_after(words, "--data.name") or "digits"
    prog = "python -m experiments.state_privacy"
    config = parse(Config, presets(name), words, prog, __doc__)
    setting = build(config)
    return study(
        "state_privacy",
        config,
        setting.title,
        lambda: work(config, setting),
        model="random features",
    )


def work(config: Config, setting: Setting) -> Any:
    """Reconstruct, tell members, add noise."""
    keys = jax.random.split(jax.random.key(config.seed), 4)
    guesses = _reconstruct(config, setting, keys[0])
    groups = (setting.kept, setting.deleted, setting.never)
    attacks = {}
    with progress("tell who is within", 1):
        for ratio in config.ratios:
            width = round(len(setting.kept.unit) / ratio)
            found = memberships(keys[1], groups, width=width, l2=config.l2)
            attacks[ratio] = (width, found)
    noise = {}
    if config.epsilons:
        what = prepare_release(keys[2], groups, setting.test, width=config.noise_width)
        for epsilon in (math.inf, *sorted(config.epsilons, reverse=True)):
            with progress(f"epsilon {epsilon:g}", 1):
                noise[epsilon] = release(
                    keys[3],
                    what,
                    epsilon,
                    config.delta,
                    l2=config.l2,
                    draws=config.draws,
                )
    measured = Measured(guesses, attacks, noise)

    def show(run: Run) -> Findings:
        return Findings([], tables(config, measured, run), drawings(measured, setting))

    return notes_of(measured), show


def _reconstruct(
    config: Config, setting: Setting, key: Any
) -> dict[int, list[Guessed]]:
    """Guesses by size of the deletion.

    Of one row, trial i is row i; of several, the first trial is the first rows: so
    pictures show the same ones.
    """
    data = Examples(
        np.concatenate([setting.deleted.unit, setting.kept.unit]),
        np.concatenate([setting.deleted.targets, setting.kept.targets]),
    )
    state = learn_all(key, data, width=config.width, most=max(config.deleted))
    random = np.random.default_rng(config.seed + 1)
    group = len(setting.deleted.unit)
    guesses: dict[int, list[Guessed]] = {}
    for count in config.deleted:
        with progress(f"find {count} deleted", 1):
            guesses[count] = []
            for trial in range(config.trials):
                rows = random.permutation(group)[:count]
                if count == 1 or not trial:
                    rows = (trial + np.arange(count)) % group
                found = reconstruct(
                    jax.random.fold_in(key, trial),
                    state,
                    rows,
                    starts=config.starts,
                    steps=config.steps,
                )
                guesses[count].append(found)
    return guesses


if __name__ == "__main__":
    main(command)
