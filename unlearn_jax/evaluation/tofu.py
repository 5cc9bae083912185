"""TOFU's own numbers: truth ratio, forget quality, model utility, ROUGE-L.

Source: Maini et al. 2024, arXiv 2401.06121. As in open-unlearning wherever the released
scripts disagree with one another: the mean over wrong answers is geometric.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ks_2samp

PARTS = tuple(
    f"{split} {what}"
    for split in ("retain", "real authors", "world facts")
    for what in ("probability", "rouge", "truth ratio")
)
"""The nine numbers of model utility."""


def truth_ratio(paraphrased: np.ndarray, perturbed: np.ndarray) -> np.ndarray:
    """Mean probability of wrong answers over that of the paraphrased true one.

    Args:
        paraphrased: (n,) mean log-probability per token of the paraphrased answers.
        perturbed: (n, j) the same of wrong answers.

    Returns:
        (n,) ratios R, the mean over wrong answers geometric. Unit 1, range 0 to
        infinity; below 1 where the truth is preferred. Direction: towards the oracle,
        whose value is about 1 for what it never saw.
    """
    return np.exp(np.mean(perturbed, axis=1) - paraphrased)


def useful_truth(ratios: np.ndarray) -> float:
    """Mean of max(0, 1 - R), the part of utility. Unit 1, range 0 to 1, up."""
    return float(np.mean(np.maximum(0, 1 - ratios)))


def forgotten_truth(ratios: np.ndarray) -> float:
    """Mean of min(R, 1/R), of the forget set. Unit 1, range 0 to 1, to the oracle."""
    return float(np.mean(np.minimum(ratios, 1 / ratios)))


class ForgetQuality(NamedTuple):
    """Value: a two-sample Kolmogorov-Smirnov test.

    Attributes:
        p: Its p-value, TOFU's forget quality. Range ``floor`` to 1, up; of two oracles
            uniform between 0 and 1.
        statistic: D, the largest distance of the distribution functions. Range 0 to 1,
            down; what tells models apart where p is at its floor.
        floor: The p-value at D = 1: saturated, and no ordering below it.
    """

    p: float
    statistic: float
    floor: float


def forget_quality(unlearned: np.ndarray, oracle: np.ndarray) -> ForgetQuality:
    """Whether truth ratios on the forget set are those of a retrained model.

    Args:
        unlearned: (n,) truth ratios.
        oracle: (m,) of the model that was retrained without the forget set.

    Raises:
        ValueError: ratios that are not finite, or none.
    """
    for name, values in (("unlearned", unlearned), ("oracle", oracle)):
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(
                f"the {name} truth ratios are {len(values)} numbers of which "
                f"{int(np.isfinite(values).sum())} are finite, expected some, all "
                "finite: a destroyed model has no forget quality"
            )
    found: Any = ks_2samp(unlearned, oracle)
    apart: Any = ks_2samp(np.zeros(len(unlearned)), np.ones(len(oracle)))
    return ForgetQuality(
        float(found.pvalue), float(found.statistic), float(apart.pvalue)
    )


def model_utility(parts: Mapping[str, float]) -> float:
    """Harmonic mean of the nine :data:`PARTS`; 0 where any of them is.

    Unit 1, range 0 to 1, up, but no further than the oracle.

    Raises:
        ValueError: parts that are missing, or of other names.
    """
    missing, other = set(PARTS) - set(parts), set(parts) - set(PARTS)
    if missing or other:
        raise ValueError(
            f"model utility lacks {sorted(missing)} and does not know {sorted(other)}: "
            f"give {', '.join(PARTS)}"
        )
    values = [parts[name] for name in PARTS]
    if min(values) <= 0:
        return 0.0
    return len(values) / sum(1 / value for value in values)


def rouge_l(prediction: str, reference: str) -> dict[str, float]:
    """ROUGE-L of two texts: longest common subsequence of words.

    Words are runs of letters a to z and digits in lower case, without stemming, as in
    the package rouge-score. TOFU and RWKU take the recall, MUSE f.

    Returns:
        "precision", "recall" and "f", from 0 to 1; 0 where a text has no words.
        Direction: up on what is retained, towards the oracle on the forget set.
    """
    said, wanted = (_words(text) for text in (prediction, reference))
    common = _common(said, wanted)
    if not common:
        return {"precision": 0.0, "recall": 0.0, "f": 0.0}
    precision, recall = common / len(said), common / len(wanted)
    harmonic = 2 * precision * recall / (precision + recall)
    return {"precision": precision, "recall": recall, "f": harmonic}


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for one in a:
        before = 0
        for place, other in enumerate(b, 1):
            above = row[place]
            row[place] = before + 1 if one == other else max(above, row[place - 1])
            before = above
    return row[-1]
