"""The confidence attack of the SalUn line: is a forgotten example judged unseen?"""

import numpy as np
from jaxtyping import Float

from unlearn_jax.evaluation.membership import generator
from unlearn_jax.evaluation.outputs import SplitOutputs, confidences, residuals
from unlearn_jax.types import PRNGKey


def confidence_attack(
    key: PRNGKey, split: SplitOutputs, *, cap: int = 1000, as_published: bool = False
) -> float:
    """MIA-efficacy: share of the forget set that is judged never seen.

    A support vector machine (RBF kernel, C = 3, gamma = 1 / features = 1) learns to
    tell retain (members) from test (non-members) by the softmax probability of the
    true class alone, then judges the forget set. Where all confidences are equal
    nothing can be learned and the value is 50.

    Args:
        key: Evaluation seed; draws the examples that the machine learns from.
        split: Outputs of one model.
        cap: Examples of each group at most; both groups are equal in number (count).
        as_published: Take the first examples of retain, as many as test has, and all
            of test, without a cap; the key is not read then. Retain is then often
            sorted by the data set's own order, which is not random.

    Returns:
        Unit %, range 0 to 100. Direction: towards the oracle's value, which is neither
        0 nor 100; two oracles differ by a few points.

    Raises:
        ImportError: scikit-learn is not installed.

    Cost: quadratic in the examples learned from; on one CPU core about 0.1 s at the
        default cap and 10 s at 10,000 of each group.
    Source: Jia et al. 2023, arXiv 2304.04934 and Fan et al. 2024, arXiv 2310.12508,
        code. Differs: random examples and a cap, unless ``as_published``.
    """
    members, others = confidences(split.retain), confidences(split.test)
    count = min(members.size, others.size)
    if as_published:
        members, others = members[:count], others[:count]
    else:
        rng, count = generator(key), min(count, cap)
        members = rng.choice(members, count, replace=False)
        others = rng.choice(others, count, replace=False)
    return _share_judged_unseen(members, others, confidences(split.forget))


def error_attack(key: PRNGKey, split: SplitOutputs, *, cap: int = 1000) -> float:
    """:func:`confidence_attack` for a regression, by the absolute error alone.

    Args:
        key: Evaluation seed; draws the examples that the machine learns from.
        split: Outputs of one model.
        cap: Examples of each group at most (count).

    Returns:
        Unit %, range 0 to 100: share of the forget set that is judged never seen.

    Raises:
        ImportError: scikit-learn is not installed.

    Cost: as ``confidence_attack``.
    Source: Tarun et al. 2023, arXiv 2210.08196, whose figure is one minus this.
        Differs: random examples and a cap, both groups equal in number.
    """
    members, others, judged = (
        np.mean(np.abs(residuals(part)), axis=-1)
        for part in (split.retain, split.test, split.forget)
    )
    rng, count = generator(key), min(members.size, others.size, cap)
    members = rng.choice(members, count, replace=False)
    others = rng.choice(others, count, replace=False)
    return _share_judged_unseen(members, others, judged)


def _share_judged_unseen(
    members: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " n"],
    judged: Float[np.ndarray, " q"],
) -> float:
    try:
        from sklearn.svm import SVC
    except ImportError as error:
        raise ImportError(
            "the confidence attack needs scikit-learn: pip install scikit-learn"
        ) from error
    feature = np.concatenate([members, others])[:, None]
    if np.ptp(feature) <= 1e-12:
        return 50.0
    member = np.arange(feature.size) < members.size
    machine = SVC(C=3.0, gamma="auto", kernel="rbf").fit(feature, member)
    return 100.0 * float(np.mean(~machine.predict(judged[:, None]).astype(bool)))
