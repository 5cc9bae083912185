"""LDS and leave-one-out: does an attribution predict what retraining does?

Rows are queries, columns retrained models. An attribution's scale never matters here,
its order or its straight line does; each query is scored alone, then the mean is taken.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import stats

from unlearn_jax.evaluation.outputs import check_finite


class Score(NamedTuple):
    """Value: a mean correlation with its standard error, both unit 1.

    Attributes:
        value: Mean over queries, range -1 to 1; 0 for an attribution that says nothing.
        stderr: Bootstrap over queries and models jointly; NaN for one resample.
    """

    value: float
    stderr: float


def group_effects(
    effects: Float[np.ndarray, "q n"], masks: Shaped[np.ndarray, "s _"]
) -> Float[np.ndarray, "q s"]:
    """Predicted outputs of models trained with weights ``masks``, up to a constant.

    The group attribution of the linear datamodelling score: a sum of effects.

    Args:
        effects: Effect of each training example's weight on each query's output.
        masks: Training weights, a row for each model.

    Raises:
        ValueError: not one weight for each training example.
    """
    if masks.shape[1] != effects.shape[1]:
        raise ValueError(
            f"effects of shape {effects.shape} need masks of shape (models, "
            f"{effects.shape[1]}), got {masks.shape}"
        )
    return effects @ masks.astype(effects.dtype).T


def linear_datamodelling_score(
    predicted: Float[np.ndarray, "q s"],
    true: Float[np.ndarray, "q _"],
    *,
    bootstrap: int = 200,
    seed: int | np.random.Generator = 0,
) -> Score:
    """LDS: mean over queries of the rank correlation over models of random subsets.

    Args:
        predicted: Predicted outputs of the queries, a column for each subset; see
            :func:`group_effects`.
        true: Outputs of models retrained on the same subsets, means over retrainings
            where there are several. :func:`attainable` tells what their noise leaves
            to be reached.
        bootstrap: Resamples for the standard error (count).
        seed: Draws them; a generator is read on.

    Returns:
        Score; 1 for a predictor that orders all subsets rightly.

    Raises:
        ValueError: shapes differ, or no query has spread in both.

    Cost: one ranking of all numbers, and one for each resample.
    Source: Park et al. 2023, arXiv 2303.14186, §2.2. Differs: queries on which either
        side has no spread are left out; the error is by bootstrap over both axes.
    """
    return score(predicted, true, ranks=True, bootstrap=bootstrap, seed=seed)


def leave_one_out_score(
    effects: Float[np.ndarray, "q n"],
    left_out: Int[np.ndarray, " s"],
    changes: Float[np.ndarray, "q _"],
    *,
    ranks: bool = False,
    bootstrap: int = 200,
    seed: int | np.random.Generator = 0,
) -> Score:
    """Correlation of -effects with the true changes when one example is left out.

    Args:
        effects: Effect of each training example's weight on each query's output.
        left_out: Which example each retrained model did without.
        changes: Output of each query by that model minus by the model of all examples.
        ranks: Spearman's correlation; False takes Pearson's.
        bootstrap: Resamples for the standard error (count).
        seed: Draws them; a generator is read on.

    Raises:
        ValueError: shapes differ, or no query has spread in both.
    """
    predicted = -effects[:, left_out]
    return score(predicted, changes, ranks=ranks, bootstrap=bootstrap, seed=seed)


def score(
    predicted: Float[np.ndarray, "q s"],
    true: Float[np.ndarray, "q _"],
    *,
    ranks: bool,
    bootstrap: int = 200,
    seed: int | np.random.Generator = 0,
) -> Score:
    """Mean correlation over queries, with its bootstrap error.

    Raises:
        ValueError: shapes differ, or no query has spread in both.
    """
    _check(predicted, true)

    def value(rows: np.ndarray, columns: np.ndarray) -> float:
        a, b = (x[rows][:, columns] for x in (predicted, true))
        return correlation(a, b, ranks=ranks)

    error = _bootstrap(value, predicted.shape, bootstrap, seed)
    return Score(correlation(predicted, true, ranks=ranks), error)


def correlation(
    a: Float[np.ndarray, "q s"], b: Float[np.ndarray, "q _"], *, ranks: bool
) -> float:
    """Mean over rows of their correlation; rows without spread are left out.

    NaN where no row has spread.
    """
    found = correlations(a, b, ranks=ranks)
    spread = ~np.isnan(found)
    return float(np.mean(found[spread])) if spread.any() else float("nan")


def correlations(
    a: Float[np.ndarray, "q s"], b: Float[np.ndarray, "q _"], *, ranks: bool
) -> Float[np.ndarray, " q"]:
    """Correlation of each pair of rows, NaN where one of them has no spread.

    Args:
        a: One side.
        b: The other.
        ranks: Spearman's, with ties at their mean rank; False takes Pearson's.
    """
    if ranks:
        a, b = (stats.rankdata(x, axis=1) for x in (a, b))
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    sizes = np.sqrt(np.sum(a**2, axis=1) * np.sum(b**2, axis=1))
    some = sizes > 0
    products = np.sum(a * b, axis=1)
    return np.divide(products, sizes, out=np.full(len(sizes), np.nan), where=some)


def attainable(
    runs: Float[np.ndarray, "r q s"],
    *,
    splits: int = 20,
    bootstrap: int = 200,
    seed: int | np.random.Generator = 0,
) -> Score:
    """The LDS that a perfect predictor of mean outputs would reach, given the noise.

    True outputs are means over r retrainings with other seeds, and keep a part of
    their noise. The rank correlation c between the means of two halves of the
    retrainings, averaged over queries and random cuts, estimates their reliability; by
    Spearman's and Brown's law the mean over all r runs has

        reliability = k c / (1 + (k - 1) c),  k = r / (r // 2),

    and the correlation with what the runs are a noisy picture of is its square root.
    The law is one of linear correlation, for ranks an approximation; an attribution
    made from retrained models of its own may not reach it, for its noise counts too.

    Args:
        runs: Output of each query by each retraining on each subset.
        splits: Random cuts in halves (count).
        bootstrap: Resamples of queries and subsets for the error (count).
        seed: Draws both; a generator is read on.

    Returns:
        Score; 0 where halves do not agree at all.

    Raises:
        ValueError: fewer than two retrainings, or no query has spread.
    """
    count = runs.shape[0]
    if count < 2:
        raise ValueError(
            f"noise shows between retrainings, got {count}; retrain each subset at "
            f"least twice, with other seeds"
        )
    rng = np.random.default_rng(seed)
    half = count // 2
    pairs = []
    for _ in range(splits if count > 2 else 1):
        order = rng.permutation(count)
        pairs.append(
            tuple(runs[part].mean(0) for part in (order[:half], order[-half:]))
        )
    factor = count / half

    def value(rows: np.ndarray, columns: np.ndarray) -> float:
        agreement = np.mean(
            [
                correlation(a[rows][:, columns], b[rows][:, columns], ranks=True)
                for a, b in pairs
            ]
        )
        agreement = max(float(agreement), 0.0)
        return float(np.sqrt(factor * agreement / (1 + (factor - 1) * agreement)))

    _check(*pairs[0])
    shape = runs.shape[1:]
    whole = value(*(np.arange(size) for size in shape))
    return Score(whole, _bootstrap(value, shape, bootstrap, rng))


def _bootstrap(
    value: Callable[[np.ndarray, np.ndarray], float],
    shape: tuple[int, ...],
    resamples: int,
    seed: int | np.random.Generator,
) -> float:
    """Standard deviation of a value over draws of rows and columns with replacement."""
    rng = np.random.default_rng(seed)
    rows, columns = shape
    again = []
    for _ in range(resamples):
        drawn = rng.integers(0, rows, rows), rng.integers(0, columns, columns)
        again.append(value(*drawn))
    again = [x for x in again if not np.isnan(x)]
    return float(np.std(again, ddof=1)) if len(again) > 1 else float("nan")


def _check(predicted: np.ndarray, true: np.ndarray) -> None:
    if predicted.shape != true.shape:
        raise ValueError(
            f"predicted outputs of shape {predicted.shape} and true ones of shape "
            f"{true.shape}; expected (queries, models) of both"
        )
    check_finite("outputs", predicted, true)
    flat = [np.all(x == x[:, :1], axis=1) for x in (predicted, true)]
    if np.all(np.logical_or(*flat)):
        raise ValueError(
            f"no query of {len(predicted)} has spread over {predicted.shape[1]} models "
            f"in both predicted and true outputs"
        )
