"""Ways to choose among trials without the oracle, each a function of the signals."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.tune.trials import DEFAULT, PRESET


class Tried(NamedTuple):
    """Value: all trials of one method on one original.

    Attributes:
        trials: Their names; the preset is behind those that one may choose, or
            among them.
        signals: (t,) numbers of those that one may choose, by name of the signal; NaN
            where the model is not finite.
        original: The same numbers of the original.
        margin: What accuracies may lose (points).
    """

    trials: Sequence[str]
    signals: Mapping[str, np.ndarray]
    original: Mapping[str, float]
    margin: float


class Criterion(NamedTuple):
    """Description: one way to choose.

    Attributes:
        choose: The number of the chosen trial.
        about: What it takes, in words.
    """

    choose: Callable[[Tried], int]
    about: str


def loss_of_accuracy(tried: Tried) -> np.ndarray:
    """What each trial loses, the worse of retain and validation (points)."""
    names = ("retain_accuracy", "validation_accuracy")
    lost = [tried.original[name] - tried.signals[name] for name in names]
    return _known(np.max(lost, axis=0))


def most_forgetting(tried: Tried) -> int:
    """The highest forget loss within the margin; else the least loss of accuracy."""
    lost = loss_of_accuracy(tried)
    if not (lost <= tried.margin).any():
        return int(np.argmin(lost))
    forgotten = np.where(lost <= tried.margin, tried.signals["forget_loss"], -np.inf)
    return int(np.argmax(forgotten))


def attack(tried: Tried) -> int:
    """Where the attack is nearest to guessing."""
    return int(np.argmin(_known(np.abs(tried.signals["attack"] - 0.5))))


def attack_within_margin(tried: Tried) -> int:
    """The same among trials within the margin; else the least loss of accuracy."""
    lost = loss_of_accuracy(tried)
    if not (lost <= tried.margin).any():
        return int(np.argmin(lost))
    apart = np.abs(tried.signals["attack"] - 0.5)
    return int(np.argmin(np.where(lost <= tried.margin, apart, np.inf)))


def surrogates(tried: Tried) -> int:
    """Where predictions agree most with those of the small oracles."""
    return int(np.argmin(_known(-agreement(tried))))


def agreement(tried: Tried) -> np.ndarray:
    """(t,) predictions equal to the small oracles', mean of both parts (%)."""
    parts = ("agreement_forget", "agreement_validation")
    return np.mean([tried.signals[part] for part in parts], axis=0)


def for_all(seen: Sequence[Tried]) -> int:
    """One trial for several originals and requests: the highest mean agreement."""
    means = np.mean([agreement(tried) for tried in seen], axis=0)
    return int(np.argmin(_known(-means)))


def early_stopping(tried: Tried) -> int:
    """The gentlest trial whose forget loss reaches the held-out; else the strongest."""
    forgotten = tried.signals["forget_loss"]
    reached = forgotten >= tried.signals["held_out_loss"]
    if not reached.any():
        return int(np.argmin(_known(-forgotten)))
    return int(np.argmin(np.where(reached, forgotten, np.inf)))


def _fixed(name: str, tried: Tried) -> int:
    # Where both settings are the same, the one trial is called "preset".
    return tried.trials.index(name if name in tried.trials else PRESET)


def _known(numbers: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(numbers), np.inf, numbers)


CRITERIA: Mapping[str, Criterion] = {
    "published default": Criterion(
        lambda tried: _fixed(DEFAULT, tried), "the defaults of the method's factory"
    ),
    "preset": Criterion(
        lambda tried: _fixed(PRESET, tried),
        "the preset of `compare`, one for all requests",
    ),
    "most forgetting": Criterion(
        most_forgetting,
        "the highest forget loss among trials whose retain and validation accuracy lie "
        "within the margin of the original's",
    ),
    "attack": Criterion(
        attack, "a loss attack, forget set against held-out, nearest to guessing"
    ),
    "attack, in margin": Criterion(
        attack_within_margin, "the same among trials within the margin"
    ),
    "small oracles": Criterion(
        surrogates,
        "most predictions equal to small oracles', on forget set and validation",
    ),
    "early stopping": Criterion(
        early_stopping,
        "the gentlest trial whose forget loss reaches that of held-out examples; the "
        "strongest where none does",
    ),
}
"""Name -> how it chooses."""
