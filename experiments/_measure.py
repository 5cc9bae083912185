"""From a model's variables to rows: one forward pass, then every metric."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._setting import Asked, Setting, seed_key
from unlearn_jax import tree
from unlearn_jax.data.accumulate import collect
from unlearn_jax.evaluation import METRICS, References, measure
from unlearn_jax.evaluation.outputs import SplitOutputs, losses, split_outputs
from unlearn_jax.evaluation.relearn import relearn_steps
from unlearn_jax.evaluation.verdict import chance_level
from unlearn_jax.types import Variables


class Row(NamedTuple):
    """One number of one evaluation seed; ``failure`` says why there is none."""

    metric: str
    split: str
    evaluate_seed: int
    value: float | None
    unit: str
    failure: str = ""


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
    setting: Setting, asked: Asked, outputs: tuple[np.ndarray, np.ndarray]
) -> SplitOutputs:
    """Cut one model's outputs into the four splits of a request."""
    splits = setting.dataset.splits
    return split_outputs(
        outputs[0],
        np.asarray(splits.train.targets),
        outputs[1],
        np.asarray(splits.test.targets),
        forget=asked.forget,
        test=asked.test,
        unseen=asked.unseen,
    )


def metric_rows(
    setting: Setting,
    unlearned: SplitOutputs,
    references: References,
    *,
    seeds: tuple[int, int],
) -> list[Row]:
    """Every metric at every evaluation seed; one that fails is a named failure.

    Args:
        setting: Its task decides which metrics apply.
        unlearned: The model to judge.
        references: The oracle it is compared with, and others.
        seeds: Training and unlearning seed, from which the evaluation keys come.
    """
    task = setting.dataset.task
    rows = []
    for k in range(setting.config.seeds.evaluate):
        key = seed_key("evaluate", seeds[0], k)
        for name in metrics_for(task):
            unit = METRICS[name].unit
            try:
                values = measure((name,), key, unlearned, references, task=task)
            except ValueError as error:
                rows.append(Row(name, "", k, None, unit, str(error)))
                continue
            rows += [Row(name, where, k, value, unit) for _, where, value in values]
    return rows


def metrics_for(task: str) -> tuple[str, ...]:
    """Names of the metrics that are defined for a task."""
    return tuple(n for n, metric in METRICS.items() if task in metric.tasks)


def about_rows(
    setting: Setting, asked: Asked, original: Variables, unlearned: Variables
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
    targets = np.asarray(setting.dataset.splits.test.targets)[asked.test]
    counts = {
        "retain": len(setting.train.targets) - len(asked.forget),
        "forget": len(asked.forget),
        "test": len(targets),
    }
    rows = [("parameter_change", "", change, "1")]
    if setting.dataset.task == "classification":
        rows.append(("chance", "test", chance_level(targets), "%"))
    rows += [("examples", where, float(count), "1") for where, count in counts.items()]
    return [
        Row(metric, where, k, value, unit)
        for k in range(setting.config.seeds.evaluate)
        for metric, where, value, unit in rows
    ]


def relearn_rows(
    setting: Setting,
    asked: Asked,
    judged: Judge,
    variables: Variables,
    threshold: float,
    *,
    seed: int,
) -> list[Row]:
    """Steps to relearn the forget set, at every evaluation seed."""
    return [
        Row(
            "relearn_steps",
            "",
            k,
            float(
                judged.relearn(
                    seed_key("relearn", seed, k),
                    variables,
                    asked.request.forget,
                    threshold,
                )
            ),
            "steps",
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
