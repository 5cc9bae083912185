"""What a metric is, what it compares with, and how functions become metrics."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from unlearn_jax.evaluation.membership import Attack
from unlearn_jax.evaluation.outputs import SPLITS, Scores, SplitOutputs
from unlearn_jax.types import PRNGKey

CLASSIFICATION = ("classification",)
REGRESSION = ("regression",)
ANY_TASK = CLASSIFICATION + REGRESSION


class References(NamedTuple):
    """Value: the models an unlearned model is compared with.

    Attributes:
        oracle: The oracle of the same training seed.
        references: Other oracles of the same request with a leading member axis, never
            the one compared; None where there are none (attacks that need them refuse).
        original: The model before unlearning, of the same training seed; None where it
            is not at hand (scores that need it refuse).
    """

    oracle: SplitOutputs
    references: SplitOutputs | None = None
    original: SplitOutputs | None = None


Function: TypeAlias = Callable[[PRNGKey, SplitOutputs, References], dict[str, float]]
"""(key, unlearned, references) -> value by split."""


class Metric(NamedTuple):
    """Description: one named number, or one per split.

    Attributes:
        function: Its values by split; "all" names a number over several splits.
        unit: "%" for every share of examples, "nats" for losses, "1" for what has none,
            "targets" for what is measured like the regression targets.
        direction: "oracle" when the oracle's own value is the aim; "up" or "down" when
            the number is a closeness or a distance to the oracle.
        tasks: Tasks for which it is defined.
        summary: One line: what it is, its range, and its value for two oracles.
    """

    function: Function
    unit: Literal["%", "nats", "1", "targets"]
    direction: Literal["oracle", "up", "down"]
    tasks: tuple[str, ...]
    summary: str


def own(values: Callable[[SplitOutputs], dict[str, float]]) -> Function:
    """A property of the unlearned model alone, by split."""

    def function(
        key: PRNGKey, unlearned: SplitOutputs, references: References
    ) -> dict[str, float]:
        del key, references
        return values(unlearned)

    return function


def each(distance: Callable[[Scores, Scores], float]) -> Function:
    """A distance to the oracle on each of the four splits."""

    def function(
        key: PRNGKey, unlearned: SplitOutputs, references: References
    ) -> dict[str, float]:
        del key
        pairs = zip(SPLITS, unlearned, references.oracle, strict=True)
        return {name: distance(ours, theirs) for name, ours, theirs in pairs}

    return function


def attack_metrics(
    name: str,
    attack: Callable[[PRNGKey, SplitOutputs, References], Attack],
    tasks: tuple[str, ...],
    summary: str,
) -> dict[str, Metric]:
    """Five rows of one membership attack, forget against unseen.

    ``name`` is its AUC; ``name_error``, ``name_balanced_accuracy``,
    ``name_tpr_at_1_percent`` and ``name_tpr_at_0_1_percent`` are the other fields of
    ``Attack``. The attack runs once for all five when they are asked for in a row
    about the same models.
    """
    latest: list[tuple[tuple[object, ...], Attack]] = []

    def once(key: PRNGKey, unlearned: SplitOutputs, references: References) -> Attack:
        # By identity: holding the arguments keeps their identities their own.
        asked = (key, unlearned, references)
        for known, found in latest:
            if all(a is b for a, b in zip(asked, known, strict=True)):
                return found
        latest[:] = [(asked, attack(*asked))]
        return latest[0][1]

    def field(which: str) -> Function:
        def function(
            key: PRNGKey, unlearned: SplitOutputs, references: References
        ) -> dict[str, float]:
            return {"forget": getattr(once(key, unlearned, references), which)}

        return function

    def row(which: str, unit: Literal["%", "1"], meaning: str) -> Metric:
        return Metric(field(which), unit, "oracle", tasks, f"{summary}: {meaning}")

    low = "members found at {} false accusations, 0 to 100; oracle {}"
    return {
        name: row("auc", "1", "AUC, 0 to 1; oracle 0.5"),
        f"{name}_error": row("auc_error", "1", "standard error of the AUC, 0 to 0.5"),
        f"{name}_balanced_accuracy": row(
            "balanced_accuracy", "%", "balanced accuracy, 0 to 100; oracle 50"
        ),
        f"{name}_tpr_at_1_percent": row(
            "tpr_at_1_percent", "%", low.format("1%", "1 or a little more")
        ),
        f"{name}_tpr_at_0_1_percent": row(
            "tpr_at_0_1_percent", "%", low.format("0.1%", "0.1 or 100 / unseen")
        ),
    }
