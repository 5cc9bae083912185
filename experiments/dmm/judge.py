"""From margins to numbers: KLoM, attacks, points, how the change of margins agrees."""

from collections.abc import Iterator

import jax
import numpy as np

from experiments.dmm.unlearn import Answers
from unlearn_jax.evaluation.forgetting_quality import final_score, quality_of_margins
from unlearn_jax.evaluation.klom import klom, percentiles
from unlearn_jax.evaluation.unlearning_lira import unlearning_lira
from unlearn_jax.results.rows import Row

SPLITS = ("forget", "retain", "validation")
_WORST = 100.0  # where klom clips, nats


def judged(
    split: np.ndarray,
    margins: np.ndarray,
    truth: np.ndarray,
    before: np.ndarray | None,
) -> Iterator[Row]:
    """Numbers of one contender on one request.

    Args:
        split: (q,) which of ``SPLITS`` a point is of.
        margins: (m, q) after unlearning.
        truth: (m, q) of the oracles.
        before: (m, q) of the originals; None where there is one for all, whose noise
            would be on both sides of the agreement.
    """
    found, lost = _finite(margins), split == "forget"
    distances = klom(found, _finite(truth))
    for part in SPLITS:
        values = percentiles(distances[split == part])
        for metric in ("p50", "p95", "mean"):
            value = float(getattr(values, metric))
            yield Row(f"klom_{metric}", value, "nats", {"split": part})
    truth = truth[:, lost]
    if before is not None:
        agreement, size = _change(found[:, lost], truth, before[:, lost])
        if np.isfinite(agreement):
            yield Row("agreement", agreement)
        yield Row("size", size)
    attack = unlearning_lira(jax.random.key(0), found[:, lost], _finite(truth))
    yield Row("unlearning_lira", attack.accuracy, "%")
    yield Row("unlearning_lira_stderr", attack.accuracy_error, "%")


def scored(split: np.ndarray, mine: Answers, oracles: Answers) -> Iterator[Row]:
    """The score of the challenge of NeurIPS 2023, and what it is made of.

    Args:
        split: (q,) which of ``SPLITS`` a point is of.
        mine: After unlearning.
        oracles: Of the oracles.
    """
    lost = split == "forget"
    pair = (_finite(answers.margins[:, lost]) for answers in (mine, oracles))
    quality = quality_of_margins(*pair)

    def shares(part: str) -> tuple[float, float]:
        right = [each.right[:, split == part].mean() for each in (mine, oracles)]
        return 100 * float(right[0]), 100 * float(right[1])

    yield Row("forgetting_quality", quality.value)
    yield Row("epsilon", float(np.median(quality.epsilons)))
    for part in SPLITS:
        yield Row("accuracy", shares(part)[0], "%", {"split": part})
    retain, test = shares("retain"), shares("validation")
    if min(retain[1], test[1]) > 0:
        yield Row("final_score", final_score(quality.value, retain, test))


def _finite(margins: np.ndarray) -> np.ndarray:
    """A model that diverged says the worst of everything."""
    found = np.nan_to_num(margins, nan=-_WORST, posinf=_WORST, neginf=-_WORST)
    return np.clip(found, -_WORST, _WORST).astype(np.float64)


def _change(
    unlearned: np.ndarray, truth: np.ndarray, before: np.ndarray
) -> tuple[float, float]:
    """Correlation and relative size of the mean change of forgotten margins.

    The change is that of one half of the originals, what the oracles ask for that from
    the other half: on the same half its noise would be in both.
    """
    oracle, half = truth.mean(0), len(before) // 2
    parts = (slice(None, half), slice(half, 2 * half))
    found = []
    for own, other in (parts, parts[::-1]):
        change = unlearned[own].mean(0) - before[own].mean(0)
        wanted = oracle - before[other].mean(0)
        if np.std(change) == 0:
            return float("nan"), 0.0
        correlation = np.corrcoef(change, wanted)[0, 1]
        found.append((correlation, change.mean() / wanted.mean()))
    agreement, size = np.mean(found, axis=0)
    return float(agreement), float(size)
