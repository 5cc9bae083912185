"""From a model's variables to rows: one forward pass, then every metric."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.compare.setting import Case, Setting
from experiments.frame.problem import seed_key
from unlearn_jax import tree
from unlearn_jax.data.accumulate import collect
from unlearn_jax.evaluation import References, measure
from unlearn_jax.evaluation.outputs import SplitOutputs, losses, split_outputs
from unlearn_jax.evaluation.relearn import relearn_steps
from unlearn_jax.evaluation.verdict import chance_level
from unlearn_jax.results.rows import Row
from unlearn_jax.types import Variables


class Judge(NamedTuple):
    """Compiled evaluation of one setting.

    Attributes:
        outputs: ``variables -> (training outputs, test outputs)`` on the host.
        relearn: ``(key, variables, forget batch, threshold) -> steps``.
    """

    outputs: Callable[[Variables], tuple[np.ndarray, np.ndarray]]
    relearn: Callable[..., int]


def judge(setting: Setting) -> Judge:
    """Compile once what every model of a setting is judged by."""
    model, learner = setting.learner.model, setting.learner
    test_inputs = jnp.asarray(setting.dataset.splits.test.inputs)

    def forward(inputs: Any, variables: Variables) -> Any:
        return model.apply(variables, inputs)

    def both(variables: Variables, train: Any, test: Any) -> Any:
        return collect(forward, train, variables), collect(forward, test, variables)

    both = jax.jit(both)
    steps = jax.jit(
        lambda key, variables, forget, threshold: relearn_steps(
            key,
            learner,
            variables,
            forget,
            threshold,
            max_steps=setting.config.relearn_steps,
        )
    )

    def outputs(variables: Variables) -> tuple[np.ndarray, np.ndarray]:
        train, test = both(variables, setting.train.inputs, test_inputs)
        return np.asarray(train), np.asarray(test)

    return Judge(outputs, lambda *arguments: int(steps(*arguments)))


def split(
    setting: Setting, case: Case, outputs: tuple[np.ndarray, np.ndarray]
) -> SplitOutputs:
    """Cut one model's outputs into the four splits of a request."""
    splits = setting.dataset.splits
    return split_outputs(
        outputs[0],
        np.asarray(splits.train.targets),
        outputs[1],
        np.asarray(splits.test.targets),
        forget=case.forget,
        test=case.test,
        unseen=case.unseen,
    )


def metric_rows(
    setting: Setting,
    unlearned: SplitOutputs,
    references: References,
    *,
    seeds: tuple[int, int],
    names: tuple[str, ...] | None = None,
) -> list[Row]:
    """Every metric at every evaluation seed; one that fails is a named failure.

    Args:
        setting: Its task decides which metrics apply.
        unlearned: The model to judge.
        references: The oracle it is compared with, and others.
        seeds: Training and unlearning seed, from which the evaluation keys come.
        names: Of the metrics; None takes all of the task.
    """
    known: Any = {"task": setting.dataset.task, "metrics": setting.metrics}
    rows = []
    for k in range(setting.config.seeds.evaluate):
        key = seed_key("evaluate", seeds[0], k)
        for name in setting.metrics if names is None else names:
            unit = setting.metrics[name].unit
            try:
                found = measure([name], key, unlearned, references, **known)
            except ValueError as error:
                failure = " ".join(str(error).split())[:300]
                rows.append(row(name, None, unit, seed=k, failure=failure))
                continue
            rows += [row(name, value, unit, where, k) for _, where, value in found]
    return rows


def row(
    metric: str,
    value: float | None,
    unit: str = "1",
    split: str = "",
    seed: int = 0,
    failure: str = "",
) -> Row:
    """A number of one split and one evaluation seed."""
    return Row(metric, value, unit, {"split": split, "evaluate_seed": seed}, failure)


def about_rows(
    setting: Setting, case: Case, original: Variables, unlearned: Variables
) -> list[Row]:
    """What the checks need: change of the parameters, chance, number of examples."""
    moved = tree.norm(tree.subtract(unlearned.params, original.params))
    moved_stats = any(
        bool(jnp.any(a != b))
        for a, b in zip(
            jax.tree.leaves(unlearned.stats),
            jax.tree.leaves(original.stats),
            strict=True,
        )
    )
    change = float(moved / tree.norm(original.params))
    if moved_stats and change == 0.0:
        change = float(np.finfo(np.float32).tiny)
    targets = np.asarray(setting.dataset.splits.test.targets)[case.test]
    counts = {
        "retain": len(setting.train.targets) - len(case.forget),
        "forget": len(case.forget),
        "test": len(targets),
    }
    rows = [("parameter_change", "", change, "1")]
    if setting.dataset.task == "classification":
        rows.append(("chance", "test", chance_level(targets), "%"))
    rows += [("examples", where, float(count), "1") for where, count in counts.items()]
    return [
        row(metric, value, unit, where, k)
        for k in range(setting.config.seeds.evaluate)
        for metric, where, value, unit in rows
    ]


def relearn_rows(
    setting: Setting,
    case: Case,
    judged: Judge,
    variables: Variables,
    threshold: float,
    *,
    seed: int,
) -> list[Row]:
    """Steps to relearn the forget set, at every evaluation seed."""
    return [
        row(
            "relearn_steps",
            float(
                judged.relearn(
                    seed_key("relearn", seed, k),
                    variables,
                    case.request.forget,
                    threshold,
                )
            ),
            "steps",
            seed=k,
        )
        for k in range(setting.config.seeds.evaluate)
    ]


def histogram_losses(setting: Setting, outputs: SplitOutputs) -> dict[str, np.ndarray]:
    """Losses on the forget and the unseen split, for the histograms."""
    if setting.dataset.task != "classification":
        return {}
    return {
        "forget": losses(outputs.forget).astype(np.float32),
        "unseen": losses(outputs.unseen).astype(np.float32),
    }
