"""Counterfactual check: take a query's top supporters out, retrain, compare.

An attribution that means something predicts what retraining without its most
supportive examples does to a query: the sign, the size, and whether the label flips.
Random examples taken out in the same number are the control. Nothing here trains: these
functions choose what to take out, and compare what came of it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from unlearn_jax.evaluation.outputs import check_finite

Chosen = Int[np.ndarray, "q k"]


class Counterfactual(NamedTuple):
    """Value: predicted and true change of each query's output, and their agreement.

    Attributes:
        predicted: (q,) what the attribution says, in units of the output.
        shift: (q,) mean output after minus mean output before, retrained models.
        stderr: (q,) standard error of the shift over models; NaN with one on a side.
        mean_predicted: Mean of ``predicted`` over queries.
        mean_shift: Mean of ``shift`` over queries; negative where supporters went out.
        mean_stderr: Standard error of it over queries, NaN for one.
        sign_agreement: Share of queries whose shift has the predicted sign, unit %; a
            shift or prediction of exactly zero counts one half; chance gives 50.
    """

    predicted: Float[np.ndarray, " q"]
    shift: Float[np.ndarray, " q"]
    stderr: Float[np.ndarray, " q"]
    mean_predicted: float
    mean_shift: float
    mean_stderr: float
    sign_agreement: float


class Flips(NamedTuple):
    """Value: labels that change when examples are taken out.

    Attributes:
        share: Of the queries that most models classified rightly before, those that
            most classify wrongly after, unit %, range 0 to 100.
        stderr: Binomial standard error, unit %.
        queries: How many were classified rightly before (count).
    """

    share: float
    stderr: float
    queries: int


def top_supporters(
    effects: Float[np.ndarray, "q n"],
    k: int,
    weights: Float[np.ndarray, " _"] | None = None,
) -> Chosen:
    """The k training examples whose removal is predicted to lower each query most.

    Args:
        effects: Effect of each training example's weight on each query's output, a
            margin or the logit of its label.
        k: Examples to choose (count).
        weights: Training weights; an example without any is never chosen, and effects
            count times the weight, which is what leaves. None takes ones.

    Returns:
        Indices, the strongest supporter first; of equal ones the first in the data.

    Raises:
        ValueError: fewer than k examples with weight.
    """
    present = _weights(effects.shape[1], weights)
    if not 0 < k <= np.count_nonzero(present > 0):
        raise ValueError(
            f"k is {k}; expected 1 to {np.count_nonzero(present > 0)}, the training "
            f"examples with weight"
        )
    check_finite("effects", effects[:, present > 0])
    gains = np.where(present > 0, effects * present, -np.inf)
    return np.argsort(-gains, axis=1, kind="stable")[:, :k]


def random_removals(
    queries: int,
    k: int,
    weights: Float[np.ndarray, " n"],
    *,
    seed: int | np.random.Generator = 0,
) -> Chosen:
    """The control: k random examples with weight for each query, none twice.

    Args:
        queries: Rows to draw (count).
        k: Examples for each (count).
        weights: Training weights.
        seed: Draws them; a generator is read on.

    Raises:
        ValueError: fewer than k examples with weight.
    """
    rng = np.random.default_rng(seed)
    eligible = np.flatnonzero(weights > 0)
    if not 0 < k <= eligible.size:
        raise ValueError(
            f"k is {k}; expected 1 to {eligible.size}, the training examples with "
            f"weight"
        )
    rows = [rng.permutation(eligible)[:k] for _ in range(queries)]
    return np.stack(rows) if rows else np.zeros((0, k), np.int64)


def weights_without(
    chosen: Chosen, weights: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "q n"]:
    """Training weights for the models to retrain: a row for each query."""
    rows = np.repeat(weights[None], len(chosen), axis=0)
    np.put_along_axis(rows, chosen, 0.0, axis=1)
    return rows


def predicted_changes(
    effects: Float[np.ndarray, "q n"],
    chosen: Chosen,
    weights: Float[np.ndarray, " _"] | None = None,
) -> Float[np.ndarray, " q"]:
    """Minus the sum of effects times weights of what is taken out, for each query."""
    present = _weights(effects.shape[1], weights)
    return -np.sum(np.take_along_axis(effects * present, chosen, axis=1), axis=1)


def compare(
    predicted: Float[np.ndarray, " q"],
    before: Float[np.ndarray, "m _"],
    after: Float[np.ndarray, "r _"],
) -> Counterfactual:
    """Hold predicted changes against retrained models.

    Args:
        predicted: From :func:`predicted_changes`.
        before: Outputs of the queries by models of all examples, one row per seed.
        after: Outputs by retrained models, one row per seed; column q by models
            without the examples chosen for query q.

    Raises:
        ValueError: shapes do not fit, a side is empty, or a number is not finite.
    """
    if not before.shape[1] == after.shape[1] == predicted.size > 0 or not (
        len(before) and len(after)
    ):
        raise ValueError(
            f"outputs of shapes {before.shape} before and {after.shape} after do not "
            f"fit {predicted.size} predictions; expected (models, queries) of both"
        )
    check_finite("outputs and predictions", predicted, before, after)
    shift = after.mean(axis=0) - before.mean(axis=0)
    stderr = np.sqrt(_variance_of_mean(before) + _variance_of_mean(after))
    agreement = np.sign(predicted) * np.sign(shift)
    return Counterfactual(
        predicted,
        shift,
        stderr,
        float(predicted.mean()),
        float(shift.mean()),
        float(np.sqrt(_variance_of_mean(shift[:, None])[0])),
        50.0 * float(np.mean(1.0 + agreement)),
    )


def flips(
    correct_before: Bool[np.ndarray, "m q"], correct_after: Bool[np.ndarray, "r _"]
) -> Flips:
    """Share of rightly predicted labels that taking examples out turns wrong.

    The label of several models is right where more than half of them are.

    Args:
        correct_before: Whether each model of all examples classifies each query
            rightly.
        correct_after: The same by the models retrained for that query.

    Raises:
        ValueError: shapes do not fit, or no query was classified rightly before.
    """
    if correct_before.shape[1] != correct_after.shape[1]:
        raise ValueError(
            f"shapes {correct_before.shape} before and {correct_after.shape} after do "
            f"not fit; expected (models, queries) of both"
        )
    before, after = (
        np.mean(side, axis=0) > 0.5 for side in (correct_before, correct_after)
    )
    count = int(np.count_nonzero(before))
    if count == 0:
        raise ValueError("no query was classified rightly before; none can flip")
    share = float(np.mean(~after[before]))
    return Flips(100 * share, 100 * float(np.sqrt(share * (1 - share) / count)), count)


def _weights(count: int, weights: np.ndarray | None) -> np.ndarray:
    present = np.ones(count) if weights is None else weights
    if present.shape != (count,):
        raise ValueError(
            f"weights have shape {present.shape}, expected one for each of {count} "
            f"training examples"
        )
    return present


def _variance_of_mean(rows: np.ndarray) -> np.ndarray:
    """Of each column; NaN for a single row."""
    if len(rows) < 2:
        return np.full(rows.shape[1], np.nan)
    return rows.var(axis=0, ddof=1) / len(rows)
