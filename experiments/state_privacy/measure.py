"""Find deleted rows, tell members, add noise: every number of the study."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.frame.bench import Bench, piece_of, rows_of
from experiments.frame.problem import load
from experiments.state_privacy.attacks import (
    FOUND,
    Deletions,
    Examples,
    Guessed,
    Release,
    learn_all,
    memberships,
    prepare_release,
    reconstruct,
    release,
)
from experiments.state_privacy.config import Config
from unlearn_jax.data.batch import Dataset
from unlearn_jax.models.random_features import LARGEST_WIDTH, directions
from unlearn_jax.results.rows import Place, Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.types import PRNGKey

SCORES = ("residual", "leverage")
GROUPS = {"within": "within", "to be deleted": "before", "deleted": "deleted"}
"""Which rows are attacked, and the name of the attack."""
NO_NOISE = "no noise"
"""What stands for an infinite epsilon."""
_COLUMNS = 8
"""Images in a line of the figure."""


class Setting(NamedTuple):
    """Description: examples in groups, and their shape as images.

    The first three are one sample dealt out at random, so that an attack which knows
    nothing has an AUC of 0.5.
    """

    config: Config
    dataset: Dataset
    kept: Examples
    deleted: Examples
    never: Examples
    test: Examples
    shape: tuple[int, ...]

    @property
    def groups(self) -> tuple[Examples, Examples, Examples]:
        """Examples that stay, that are learnt and deleted, that are never seen."""
        return self.kept, self.deleted, self.never

    def images(self, inputs: Any) -> np.ndarray:
        """The first of some inputs, as the figure shows them."""
        shown = np.asarray(inputs)[:_COLUMNS]
        return shown.reshape(len(shown), *self.shape)


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: an unknown or absent data set, or more asked for than it has.
    """
    dataset = load(config.data)
    train, test = dataset.splits
    n = len(train.targets)
    group = n // 4
    within = n - 2 * group
    if max(config.deleted) > min(config.width, group):
        raise ValueError(
            f"deleted is {config.deleted}; expected counts of 1 to "
            f"{min(config.width, group)} (the width, the rows to delete)"
        )
    widths = [round(within / ratio) for ratio in config.ratios]
    if min(widths) < 2 or max(widths) > LARGEST_WIDTH:
        raise ValueError(
            f"ratios is {config.ratios}; {within} rows stay, so expected numbers of "
            f"{within / LARGEST_WIDTH:.2g} to {within // 2}"
        )
    kinds = np.eye(dataset.classes)

    def examples(batch: Any, chosen: np.ndarray) -> Examples:
        unit = directions(np.asarray(batch.inputs)[chosen])
        return Examples(unit, kinds[np.asarray(batch.targets)[chosen]])

    order = np.random.default_rng(config.seed).permutation(n)
    return Setting(
        config,
        dataset,
        examples(train, order[2 * group :]),
        examples(train, order[:group]),
        examples(train, order[group : 2 * group]),
        examples(test, np.arange(len(test.targets))),
        tuple(train.inputs.shape[1:]),
    )


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Reconstruct, tell members, add noise; images that are found are published."""
    config = setting.config
    keys = jax.random.split(jax.random.key(config.seed), 4)
    bench.publish("deleted", setting.images(setting.deleted.unit))
    learned = functools.cache(functools.partial(_learned, setting, keys[0]))
    for count, trials in _drawn(config, len(setting.deleted.unit)).items():
        find = functools.partial(_find, setting, keys[0], learned, count, trials)
        found = _kept(bench, f"find {count} deleted", find)
        bench.publish(f"found/{count}", found.arrays["images"])
        yield from rows_of(found)
    for ratio in config.ratios:
        tell = functools.partial(_tell, setting, keys[1], ratio)
        yield from rows_of(_kept(bench, f"who is within, {ratio:g}", tell))
    if not config.epsilons:
        return
    what = functools.cache(functools.partial(_prepared, setting, keys[2]))
    for epsilon in (math.inf, *sorted(set(config.epsilons), reverse=True)):
        noise = functools.partial(_noise, setting, keys[3], what, epsilon)
        found = _kept(bench, f"epsilon {epsilon:g}", noise)
        bench.publish(f"noise/{epsilon:g}", found.arrays["images"])
        yield from rows_of(found)


def found_shares(guesses: Sequence[Guessed]) -> np.ndarray:
    """Share of rows found in each trial (%)."""
    return np.array([100 * float(np.mean(g.row_error < FOUND)) for g in guesses])


def _kept(bench: Bench, name: str, make: Callable[[], Piece]) -> Piece:
    def shown() -> Piece:
        with bench.progress(name, 1):
            return make()

    return bench.keep(name, shown)


def _drawn(config: Config, group: int) -> dict[int, list[np.ndarray]]:
    """Which rows are deleted in each trial, by their count.

    Of one row, trial i is row i; of several, the first trial is the first rows: so
    pictures show the same ones.
    """
    random = np.random.default_rng(config.seed + 1)
    drawn: dict[int, list[np.ndarray]] = {}
    for count in config.deleted:
        drawn[count] = []
        for trial in range(config.trials):
            rows = random.permutation(group)[:count]
            if count == 1 or not trial:
                rows = (trial + np.arange(count)) % group
            drawn[count].append(rows)
    return drawn


def _learned(setting: Setting, key: PRNGKey) -> Deletions:
    parts = zip(setting.deleted, setting.kept, strict=True)
    data, config = Examples(*map(np.concatenate, parts)), setting.config
    return learn_all(key, data, width=config.width, most=max(config.deleted))


def _find(
    setting: Setting,
    key: PRNGKey,
    learned: Callable[[], Deletions],
    count: int,
    trials: Sequence[np.ndarray],
) -> Piece:
    config = setting.config
    guesses = [
        reconstruct(
            jax.random.fold_in(key, trial),
            learned(),
            rows,
            starts=config.starts,
            steps=config.steps,
        )
        for trial, rows in enumerate(trials)
    ]
    at = {"deleted": count}
    labels = np.array([100 * float(np.mean(guess.label_right)) for guess in guesses])
    errors = np.concatenate([guess.row_error for guess in guesses])
    inputs = np.concatenate([guess.input_error for guess in guesses])
    rows = [
        *_with_error("rows_found", *_mean(found_shares(guesses)), "%", at),
        Row("row_error_median", float(np.median(errors)), at=at),
        Row("row_error_max", float(np.max(errors)), at=at),
        *_with_error("label_right", *_mean(labels), "%", at),
        Row("input_error_median", float(np.median(inputs)), at=at),
    ]
    alone = np.array([guess.inputs[0] for guess in guesses])
    shown = alone if count == 1 else guesses[0].inputs
    return piece_of(rows, {"images": setting.images(shown)})


def _tell(setting: Setting, key: PRNGKey, ratio: float) -> Piece:
    width, l2 = round(len(setting.kept.unit) / ratio), setting.config.l2
    attacks = memberships(key, setting.groups, width=width, l2=l2)
    rows = [
        Row("features", float(width), at={"ratio": ratio}),
        Row("equals_never_learnt", float(attacks.equal), at={"ratio": ratio}),
    ]
    for group, field in GROUPS.items():
        for score in SCORES:
            attack = getattr(getattr(attacks, field), score)
            at = {"ratio": ratio, "group": group, "score": score}
            rows += _with_error("auc", attack.auc, attack.auc_error, "1", at)
    return piece_of(rows)


def _prepared(setting: Setting, key: PRNGKey) -> Release:
    width = setting.config.noise_width
    return prepare_release(key, setting.groups, setting.test, width=width)


def _noise(
    setting: Setting, key: PRNGKey, what: Callable[[], Release], epsilon: float
) -> Piece:
    config = setting.config
    noisy = release(
        key, what(), epsilon, config.delta, l2=config.l2, draws=config.draws
    )
    at: dict[str, Place] = {"epsilon": NO_NOISE if math.isinf(epsilon) else epsilon}
    rows = [
        Row("noise_multiplier", noisy.multiplier, at=at),
        *_with_error("accuracy", *_mean(noisy.accuracies), "%", at),
        *_with_error("cosine", *_mean(noisy.cosines), "1", at),
        Row("row_error_median", float(np.median(noisy.row_errors)), at=at),
        *_with_error("auc", *noisy.within, "1", at),
        Row("auc_strongest", noisy.strongest, at=at),
    ]
    return piece_of(rows, {"images": setting.images(noisy.inputs)})


def _with_error(
    metric: str, value: float, error: float, unit: str, at: Mapping[str, Place]
) -> list[Row]:
    return [Row(metric, value, unit, at), Row(f"{metric}_stderr", error, unit, at)]


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error; NaN from one value."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)
