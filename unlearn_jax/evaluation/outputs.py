"""What a model says about each split: outputs, losses, margins, as arrays.

Metrics read these values and never a model: one forward pass over the training and
the test set, cut into four splits, is all that an evaluation needs. Everything below
runs on the host in float64, whatever the model's precision: the arrays are small, each
split has its own shape, and nothing waits for a compiler.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jax import Array
from jaxtyping import Float, Inexact, Shaped

AnyArray: TypeAlias = Array | np.ndarray
PerExampleNumbers: TypeAlias = Float[np.ndarray, "*members n"]

SPLITS = ("retain", "forget", "test", "unseen")


class Scores(NamedTuple):
    """Value: outputs for one set of examples, with the truth.

    Attributes:
        outputs: (n, k) of one model; (m, n, k) of an ensemble.
        targets: (n,) class indices, or floating-point regression targets, (n,) or
            (n, k). Never a member axis.
    """

    outputs: Inexact[AnyArray, "... n k"]
    targets: Shaped[AnyArray, "n ..."]


class SplitOutputs(NamedTuple):
    """Value: one model (or ensemble) on the four splits of a request.

    Attributes:
        retain: Training examples that stay.
        forget: Training examples to be forgotten.
        test: Test examples of the retained distribution; for a class request the test
            examples of the other classes.
        unseen: Test examples distributed like the forget set, the non-members of every
            membership attack; for a random request the whole test set, for a class
            request the test examples of that class.
    """

    retain: Scores
    forget: Scores
    test: Scores
    unseen: Scores


def split_outputs(
    train_outputs: AnyArray,
    train_targets: AnyArray,
    test_outputs: AnyArray,
    test_targets: AnyArray,
    *,
    forget: Any,
    test: Any = None,
    unseen: Any = None,
) -> SplitOutputs:
    """Cut outputs on the whole training and test sets into the four splits.

    Args:
        train_outputs: (..., n, k), all training examples in their own order.
        train_targets: (n, ...), in the same order.
        test_outputs: (..., q, k), all test examples.
        test_targets: (q, ...), in the same order.
        forget: Indices or boolean mask over the training examples; retain is the rest.
        test: Indices or boolean mask over the test examples; None takes all.
        unseen: Indices or boolean mask over the test examples; None takes all.

    Returns:
        SplitOutputs of host arrays.

    Raises:
        ValueError: outputs and targets disagree in length, or a split is empty.
    """
    train = _paired("training", train_outputs, train_targets)
    tests = _paired("test", test_outputs, test_targets)
    forgotten = _mask(forget, train.outputs.shape[-2])
    parts = {
        "retain": _take(train, np.flatnonzero(~forgotten)),
        "forget": _take(train, np.flatnonzero(forgotten)),
        "test": tests if test is None else _take(tests, _index(test)),
        "unseen": tests if unseen is None else _take(tests, _index(unseen)),
    }
    for name, part in parts.items():
        if part.targets.shape[0] == 0:
            raise ValueError(f"the {name} split is empty; give it at least one example")
    return SplitOutputs(**parts)


def stack_members(models: list[SplitOutputs]) -> SplitOutputs:
    """One SplitOutputs with a leading member axis from several models' outputs."""
    return SplitOutputs(
        *(
            Scores(
                np.stack(
                    [np.asarray(getattr(model, name).outputs) for model in models]
                ),
                np.asarray(getattr(models[0], name).targets),
            )
            for name in SPLITS
        )
    )


def select_members(ensemble: SplitOutputs, index: Any) -> SplitOutputs:
    """The member at an integer index, or the ensemble of a slice, list or mask."""
    return SplitOutputs(
        *(Scores(np.asarray(s.outputs)[index], np.asarray(s.targets)) for s in ensemble)
    )


def is_regression(scores: Scores) -> bool:
    """True when the targets are floating-point numbers and not class indices."""
    return np.issubdtype(np.asarray(scores.targets).dtype, np.floating)


def losses(scores: Scores) -> PerExampleNumbers:
    """Loss of each example, in [0, inf); the lower, the better the fit.

    Cross-entropy in nats for class indices; for regression targets half the squared
    distance, in squared target units: the same numbers as ``train.loss`` gives.
    """
    if is_regression(scores):
        return 0.5 * np.sum(residuals(scores) ** 2, axis=-1)
    outputs = finite_outputs(scores)
    return np.maximum(_log_sum_exp(outputs) - _target_logits(outputs, scores), 0.0)


def residuals(scores: Scores) -> Float[np.ndarray, "*members n k"]:
    """Outputs minus regression targets, in target units."""
    outputs = finite_outputs(scores)
    targets = np.asarray(scores.targets, np.float64)
    check_finite("regression targets", targets)
    targets = targets.reshape(targets.shape[0], -1)
    if targets.shape != outputs.shape[-2:]:
        raise ValueError(
            f"regression targets of shape {targets.shape} do not fit outputs of shape "
            f"{outputs.shape}: expected one target per output"
        )
    return outputs - targets


def margins(scores: Scores) -> PerExampleNumbers:
    """Correct logit minus log-sum-exp of the others, in nats, in (-inf, inf).

    The log-odds log p / (1 - p) of the true class, without cancellation near p = 1.

    Raises:
        ValueError: fewer than two classes.
    """
    outputs = finite_outputs(scores)
    if outputs.shape[-1] < 2:
        raise ValueError(f"a margin needs two classes or more, got {outputs.shape[-1]}")
    others = outputs.copy()
    np.put_along_axis(others, _target_indices(outputs, scores), -np.inf, axis=-1)
    return _target_logits(outputs, scores) - _log_sum_exp(others)


def confidences(scores: Scores) -> PerExampleNumbers:
    """Softmax probability of the true class, in [0, 1], no unit."""
    return np.exp(-losses(_classified(scores)))


def entropies(scores: Scores) -> PerExampleNumbers:
    """Entropy of the softmax, in nats, in [0, log k]; reads no target."""
    outputs = finite_outputs(_classified(scores))
    log_total = _log_sum_exp(outputs)
    expected = np.sum(probabilities(scores) * (outputs - log_total[..., None]), axis=-1)
    return np.maximum(-expected, 0.0)


def probabilities(scores: Scores) -> Float[np.ndarray, "*members n k"]:
    """Softmax of the outputs, no unit; rows sum to one."""
    outputs = finite_outputs(scores)
    return np.exp(outputs - _log_sum_exp(outputs)[..., None])


def finite_outputs(scores: Scores) -> Float[np.ndarray, "*members n k"]:
    """The outputs in float64 on the host.

    Raises:
        ValueError: an output is NaN or infinite: no metric has a meaning then.
    """
    outputs = np.asarray(scores.outputs).astype(np.float64)
    check_finite("outputs", outputs)
    return outputs


def check_finite(what: str, *arrays: Any) -> None:
    """Refuse numbers that no metric has a meaning for.

    Args:
        what: What the sentence calls them, in the plural.
        arrays: Any shapes.

    Raises:
        ValueError: some are NaN or infinite; tells how many.
    """
    size = sum(np.size(array) for array in arrays)
    kept = sum(int(np.count_nonzero(np.isfinite(array))) for array in arrays)
    if kept < size:
        raise ValueError(
            f"{size - kept} of {size} {what} are NaN or infinite, expected finite "
            "numbers: mend the model they come from, or leave it out by name"
        )


def class_indices(outputs: np.ndarray, scores: Scores) -> np.ndarray:
    """The targets as class indices of these outputs.

    Raises:
        ValueError: floating-point or one-hot targets, another number of them than
            examples, or a label without an output.
    """
    targets = np.asarray(_classified(scores).targets)
    if targets.shape != outputs.shape[-2:-1] or targets.dtype == bool:
        raise ValueError(
            f"got {targets.dtype} targets of shape {targets.shape} for outputs of "
            f"shape {outputs.shape}, expected one class index for each example: turn "
            "one-hot rows into indices with argmax"
        )
    wrong = np.flatnonzero((targets < 0) | (targets >= outputs.shape[-1]))
    if wrong.size:
        raise ValueError(
            f"got {wrong.size} labels out of range, the first is "
            f"{int(targets[wrong[0]])} at example {int(wrong[0])}: class indices from "
            f"{targets.min()} to {targets.max()} do not fit {outputs.shape[-1]} "
            "outputs, renumber them"
        )
    return targets


def _classified(scores: Scores) -> Scores:
    if is_regression(scores):
        raise ValueError("the targets are floating-point; class indices are needed")
    return scores


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    top = np.max(values, axis=-1, keepdims=True)
    return np.log(np.sum(np.exp(values - top), axis=-1)) + top[..., 0]


def _target_indices(outputs: np.ndarray, scores: Scores) -> np.ndarray:
    targets = class_indices(outputs, scores)
    return np.broadcast_to(targets[:, None], (*outputs.shape[:-1], 1))


def _target_logits(outputs: np.ndarray, scores: Scores) -> np.ndarray:
    indices = _target_indices(outputs, scores)
    return np.take_along_axis(outputs, indices, axis=-1)[..., 0]


def _mask(chosen: Any, length: int) -> np.ndarray:
    mask = np.zeros(length, bool)
    mask[_index(chosen)] = True
    return mask


def _index(chosen: Any) -> np.ndarray:
    index = np.asarray(chosen)
    return index if index.size else index.astype(int)


def _take(scores: Scores, chosen: np.ndarray) -> Scores:
    outputs, targets = np.asarray(scores.outputs), np.asarray(scores.targets)
    return Scores(outputs[..., chosen, :], targets[chosen])


def _paired(name: str, outputs: AnyArray, targets: AnyArray) -> Scores:
    if outputs.ndim < 2 or outputs.shape[-2] != targets.shape[0]:
        raise ValueError(
            f"{name} outputs of shape {outputs.shape} do not fit targets of shape "
            f"{targets.shape}: expected (..., n, k) and (n, ...)"
        )
    return Scores(np.asarray(outputs), np.asarray(targets))
