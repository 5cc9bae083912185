"""What models say of forgotten facts that are asked for in other ways, or told."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.authors.build import Setting
from experiments.authors.ways import MISLED, SPARED, TOLD, asked_otherwise
from experiments.language.trials import over_models
from unlearn_jax.data.probes import Probe
from unlearn_jax.evaluation.resurgence import resurgence
from unlearn_jax.evaluation.tofu import rouge_l
from unlearn_jax.models.generate import generate
from unlearn_jax.results.rows import Row
from unlearn_jax.types import Array, Variables

PLAIN = ("blank", "question")
"""Kinds of probes that are no attack."""


class Probed(NamedTuple):
    """Value: of one model, kind of a probe -> mean ROUGE-L recall.

    Attributes:
        kinds: "blank", "question", and the attacks' names.
        told: Of the questions behind a statement that answers them.
        misled: Of the questions behind a false answer, and true ones of others.
        spared: Of a retained question behind the same.
    """

    kinds: Mapping[str, float]
    told: float
    misled: float
    spared: float


def prober(setting: Setting) -> Callable[[Any], list[Probed]]:
    """``params (models, p) -> what each model says``; compiled once."""
    every = asked_otherwise(setting.questions, setting.config.probed)
    template, encode = setting.template, setting.words.encode
    rows = [encode(template.before + one.prompt + template.after) for one in every]
    table = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    steps = max(len(encode(one.answer)) for one in every) + 1
    end = -1 if setting.words.end is None else setting.words.end
    model = setting.task.learner.model

    def spoken(at: Variables, prompts: Any) -> Array:
        return generate(jax.random.key(0), model, at, prompts, steps=steps, end=end)

    run = over_models(setting.task, spoken, jnp.asarray(table))

    def probed(params: Any) -> list[Probed]:
        return [_scored(setting, every, tokens) for tokens in run(params)]

    return probed


def _scored(setting: Setting, every: list[Probe], tokens: np.ndarray) -> Probed:
    found: dict[str, list[float]] = defaultdict(list)
    for probe, row in zip(every, tokens, strict=True):
        text = setting.words.decode([t for t in row if t >= 0])
        found[probe.kind].append(rouge_l(text, probe.answer)["recall"])
    means = {kind: float(np.mean(values)) for kind, values in found.items()}
    told, misled, spared = (means.pop(kind) for kind in (TOLD, MISLED, SPARED))
    return Probed(means, told, misled, spared)


def rows_of_probes(
    own: Probed, original: Probed, where: Mapping[str, Any]
) -> Iterator[Row]:
    """Recall of each kind, the mean and the best of attacks, and what a prompt does.

    Args:
        own: Of the model.
        original: Of the original of the same seed.
        where: The row's place.
    """
    for kind, value in own.kinds.items():
        yield Row("probe_recall", value, "1", {**where, "split": kind})
    attacks = [own.kinds[kind] for kind in own.kinds if kind not in PLAIN]
    yield Row("attack_recall", float(np.mean(attacks)), "1", where)
    yield Row("worst_attack", max(attacks), "1", where)
    before = own.kinds["question"]
    yield Row("told_recall", own.told, "1", where)
    yield Row("misled_recall", own.misled, "1", where)
    yield Row("spared_recall", own.spared, "1", where)
    if original.told != before:  # Else nothing was forgotten that could come back.
        value = resurgence(before, own.told, original.told)
        yield Row("resurgence", value, "1", where)
