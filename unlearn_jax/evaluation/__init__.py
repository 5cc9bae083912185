"""Evaluation: from a model's outputs on four splits to named numbers.

``METRICS`` is the table; ``measure`` computes rows of it. Every share of examples is in
percent; areas under a curve and closenesses have unit 1. No metric is a goal in itself:
the oracle's value is, and oracle against another oracle is the floor of every row.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unlearn_jax.evaluation.accuracy import accuracies, mean_losses, rmses
from unlearn_jax.evaluation.agreement import (
    average_gap,
    jensen_shannon,
    output_difference,
    prediction_agreement,
    total_variation,
    tug_of_war,
)
from unlearn_jax.evaluation.aus import adaptive_unlearning_score
from unlearn_jax.evaluation.confidence import confidence_attack, error_attack
from unlearn_jax.evaluation.lira import lira_attack
from unlearn_jax.evaluation.membership import (
    Attack,
    logistic_entropy_attack,
    logistic_loss_attack,
    loss_attack,
)
from unlearn_jax.evaluation.metric import (
    ANY_TASK,
    CLASSIFICATION,
    REGRESSION,
    Metric,
    References,
    attack_metrics,
    each,
    own,
)
from unlearn_jax.evaluation.nomus import nomus
from unlearn_jax.evaluation.outputs import Scores, SplitOutputs
from unlearn_jax.evaluation.regression_attacks import (
    calibrated_attack,
    residual_ratio_attack,
)
from unlearn_jax.evaluation.rmia import rmia_attack
from unlearn_jax.evaluation.transport import wasserstein
from unlearn_jax.types import PRNGKey

__all__ = ["METRICS", "Metric", "References", "Scores", "SplitOutputs", "measure"]


def _tug_of_war(
    key: PRNGKey, unlearned: SplitOutputs, references: References
) -> dict[str, float]:
    del key
    return {"all": tug_of_war(unlearned, references.oracle)}


def _average_gap(
    key: PRNGKey, unlearned: SplitOutputs, references: References
) -> dict[str, float]:
    def published(split: SplitOutputs) -> dict[str, float]:
        shares = accuracies(split)
        shares.pop("unseen")
        return {**shares, "attack": confidence_attack(key, split)}

    return {"all": average_gap(published(unlearned), published(references.oracle))}


def _aus(
    key: PRNGKey, unlearned: SplitOutputs, references: References
) -> dict[str, float]:
    del key
    if references.original is None:
        raise ValueError("the score compares with the original, got no outputs of it")
    return {"all": adaptive_unlearning_score(unlearned, references.original)}


def _confidence(
    key: PRNGKey, unlearned: SplitOutputs, references: References
) -> dict[str, float]:
    del references
    return {"forget": confidence_attack(key, unlearned)}


def _lira(key: PRNGKey, unlearned: SplitOutputs, references: References) -> Attack:
    if references.references is None:
        raise ValueError(
            "the likelihood-ratio attack needs reference oracles, got none"
        )
    return lira_attack(key, unlearned, references.references)


def _rmia(key: PRNGKey, unlearned: SplitOutputs, references: References) -> Attack:
    if references.references is None:
        raise ValueError("the pairwise-ratio attack needs reference oracles, got none")
    return rmia_attack(key, unlearned, references.references)


def _error(
    key: PRNGKey, unlearned: SplitOutputs, references: References
) -> dict[str, float]:
    del references
    return {"forget": error_attack(key, unlearned)}


def _nomus(
    key: PRNGKey, unlearned: SplitOutputs, references: References
) -> dict[str, float]:
    del references
    return {"all": nomus(key, unlearned, None)}


def _capped_nomus(
    key: PRNGKey, unlearned: SplitOutputs, references: References
) -> dict[str, float]:
    return {"all": nomus(key, unlearned, references.oracle)}


def _with_references(
    attack: Callable[[PRNGKey, SplitOutputs, SplitOutputs], Attack],
) -> Callable[[PRNGKey, SplitOutputs, References], Attack]:
    def run(key: PRNGKey, unlearned: SplitOutputs, references: References) -> Attack:
        if references.references is None:
            raise ValueError("this attack needs reference oracles, got none")
        return attack(key, unlearned, references.references)

    return run


METRICS: Mapping[str, Metric] = {
    # what the model does: split by split
    "accuracy": Metric(
        own(accuracies),
        "%",
        "oracle",
        CLASSIFICATION,
        "share of examples classified rightly, 0 to 100; two oracles differ by seed",
    ),
    "loss": Metric(
        own(mean_losses),
        "nats",
        "oracle",
        CLASSIFICATION,
        "mean cross-entropy, 0 to inf; two oracles differ by seed",
    ),
    "rmse": Metric(
        own(rmses),
        "targets",
        "oracle",
        REGRESSION,
        "root-mean-square error, 0 to inf; two oracles differ by seed",
    ),
    "aus": Metric(
        _aus,
        "1",
        "oracle",
        CLASSIFICATION,
        "test accuracy kept over accuracy left on forget, 0 to 2; two oracles near 1",
    ),
    # closeness to the oracle: one number for the model
    "tug_of_war": Metric(
        _tug_of_war,
        "1",
        "up",
        CLASSIFICATION,
        "product of 1 - accuracy gap over three splits, 0 to 1; two oracles below 1",
    ),
    "average_gap": Metric(
        _average_gap,
        "%",
        "down",
        CLASSIFICATION,
        "mean gap of 3 accuracies and mia_confidence, 0 to 100; two oracles above 0",
    ),
    "nomus": Metric(
        _nomus,
        "1",
        "oracle",
        CLASSIFICATION,
        "test accuracy and a membership attack in one, 0 to 1; more accuracy than the "
        "oracle's raises it",
    ),
    "nomus_capped": Metric(
        _capped_nomus,
        "1",
        "oracle",
        CLASSIFICATION,
        "the same with the oracle's test accuracy as its ceiling, 0 to 1",
    ),
    # closeness to the oracle: split by split
    "agreement": Metric(
        each(prediction_agreement),
        "%",
        "up",
        CLASSIFICATION,
        "share of predictions equal to the oracle's, 0 to 100; two oracles below 100",
    ),
    "output_distance": Metric(
        each(total_variation),
        "1",
        "down",
        CLASSIFICATION,
        "mean total variation of softmax to the oracle's, 0 to 1; two oracles above 0",
    ),
    "output_divergence": Metric(
        each(jensen_shannon),
        "nats",
        "down",
        CLASSIFICATION,
        "mean Jensen-Shannon divergence of softmax, 0 to log 2; two oracles above 0",
    ),
    "output_difference": Metric(
        each(output_difference),
        "targets",
        "down",
        REGRESSION,
        "root-mean-square difference of outputs, 0 to inf; two oracles above 0",
    ),
    "wasserstein": Metric(
        each(wasserstein),
        "targets",
        "down",
        REGRESSION,
        "Wasserstein-1 distance of predictions to the oracle's, 0 to inf; two oracles "
        "above 0",
    ),
    # membership attacks: five rows each, the name itself is the AUC
    **attack_metrics(
        "mia_loss",
        lambda key, unlearned, references: loss_attack(key, unlearned),
        ANY_TASK,
        "threshold on the loss",
    ),
    **attack_metrics(
        "mia_logistic_loss",
        lambda key, unlearned, references: logistic_loss_attack(key, unlearned),
        ANY_TASK,
        "cross-validated logistic regression on the loss",
    ),
    **attack_metrics(
        "mia_logistic_entropy",
        lambda key, unlearned, references: logistic_entropy_attack(key, unlearned),
        CLASSIFICATION,
        "cross-validated logistic regression on the entropy",
    ),
    **attack_metrics(
        "mia_lira",
        _lira,
        CLASSIFICATION,
        "likelihood ratio against models without the forget set",
    ),
    **attack_metrics(
        "mia_rmia",
        _rmia,
        CLASSIFICATION,
        "pairwise likelihood ratios against models without the forget set",
    ),
    **attack_metrics(
        "mia_calibrated",
        _with_references(calibrated_attack),
        REGRESSION,
        "loss against its mean over models without the forget set",
    ),
    **attack_metrics(
        "mia_residual_ratio",
        _with_references(residual_ratio_attack),
        REGRESSION,
        "likelihood ratio of the error against models without the forget set",
    ),
    "mia_error": Metric(
        _error,
        "%",
        "oracle",
        REGRESSION,
        "share of forget an SVC on the absolute error judges unseen, 0 to 100; two "
        "oracles differ by a few points",
    ),
    "mia_confidence": Metric(
        _confidence,
        "%",
        "oracle",
        CLASSIFICATION,
        "MIA-efficacy: share of forget an SVC on confidence judges unseen, 0 to 100; "
        "two oracles differ by a few points",
    ),
}


def measure(
    names: Sequence[str],
    key: PRNGKey,
    unlearned: SplitOutputs,
    references: References,
    *,
    task: str,
    metrics: Mapping[str, Metric] = METRICS,
) -> list[tuple[str, str, float]]:
    """Rows (metric, split, value) of the named metrics, in the order of the names.

    Every metric gets the same key, so that its value does not depend on which others
    are asked for. One that fails stops the call: to keep the others, ask for one name
    at a time and record the failure.

    Args:
        names: Keys of ``metrics``.
        key: Evaluation seed: subsets, halves and folds.
        unlearned: Outputs of the model to judge; host arrays save repeated transfers.
        references: The oracle of the same training seed, and other oracles.
        task: "classification" or "regression".
        metrics: Those that there are: METRICS, or with one's own beside them.

    Raises:
        ValueError: an unknown name, a metric not meant for the task, or one undefined
            for the data (too few examples, outputs not finite, no references): the
            message says which and why. So does one's own that fails in any way, or
            gives anything but numbers by split: a NaN is never returned.
    """
    rows = []
    for name in names:
        metric = _metric(name, task, metrics)
        try:
            values = metric.function(key, unlearned, references)
        except ValueError as error:
            raise ValueError(f"metric {name!r}: {error}") from error
        except Exception as error:  # one's own may fail in any way
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"metric {name!r}: {reason}") from error
        rows.extend((name, split, value) for split, value in _numbers(name, values))
    return rows


def _numbers(name: str, values: Any) -> list[tuple[str, float]]:
    """Values by split, which one's own metric may have made of anything."""
    try:
        found = [(str(split), float(value)) for split, value in values.items()]
    except Exception as error:
        raise ValueError(
            f"metric {name!r}: gave {type(values).__name__}, expected a dict of "
            f"numbers by split ({error})"
        ) from None
    for split, value in found:
        if math.isnan(value):
            raise ValueError(
                f"metric {name!r}: gave NaN for {split!r}, expected a number; where "
                "there is none, raise a ValueError that says why"
            )
    return found


def _metric(name: str, task: str, metrics: Mapping[str, Metric]) -> Metric:
    if name not in metrics:
        near = difflib.get_close_matches(name, metrics, n=3) or sorted(metrics)
        raise ValueError(f"no metric {name!r}; nearest: {', '.join(near)}")
    metric = metrics[name]
    if task not in metric.tasks:
        raise ValueError(f"metric {name!r} is for {metric.tasks}, not for {task!r}")
    return metric
