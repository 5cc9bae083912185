"""What a model says of every question, as numbers; each program is compiled once."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.authors.build import PARTS, REFUSALS, Setting
from experiments.authors.probing import Probed, prober
from experiments.language.trials import losses_of, over_models
from unlearn_jax.data.batch import take
from unlearn_jax.data.questions import (
    encoded,
    paraphrased_pairs,
    perturbed_pairs,
    trained_pairs,
)
from unlearn_jax.evaluation.relearn import mean_height, relearning_curve
from unlearn_jax.evaluation.resurgence import safe_refusal_rate
from unlearn_jax.evaluation.sequences import (
    Told,
    exact_memorisation,
    extraction_strength,
    min_k,
    probability,
    tell,
)
from unlearn_jax.evaluation.tofu import (
    forgotten_truth,
    model_utility,
    rouge_l,
    truth_ratio,
    useful_truth,
)
from unlearn_jax.methods.forgetting import divergence
from unlearn_jax.models.generate import generate
from unlearn_jax.train.asked import asked
from unlearn_jax.types import Array, Batch, Variables

SPOKEN = ("forget", "retain", "real", "world")
DIVERGED = ("forget", "retain", "holdout")
_TOFU = {"retain": "retain", "real": "real authors", "world": "world facts"}
_BATCH = 16


class Judges(NamedTuple):
    """Description: programs over models, (models, p) in and numpy out.

    Attributes:
        losses: See ``losses_of``.
        told: What is said of all sequences of ``places``.
        spoken: Tokens that follow each question of ``SPOKEN``.
        logits: Outputs on the trained questions of ``DIVERGED``.
        relearned: (models, points) losses of one half of what was forgotten while the
            other half is learnt again.
        probed: What is said where the forgotten is asked for otherwise; None where
            nothing is.
        places: (part, "true" | "paraphrased" | "perturbed") -> rows of ``told``.
    """

    losses: Callable[[Any], np.ndarray]
    told: Callable[[Any], Any]
    spoken: Callable[[Any], np.ndarray]
    logits: Callable[[Any], np.ndarray]
    relearned: Callable[[Any], np.ndarray]
    probed: Callable[[Any], list[Probed]] | None
    places: Mapping[tuple[str, str], np.ndarray]


class Heard(NamedTuple):
    """Value: one model's numbers.

    Attributes:
        values: Name -> number.
        ratios: (n,) truth ratios of the forget part.
        attack: (n + m,) Min-K of forget and holdout part.
    """

    values: Mapping[str, float]
    ratios: np.ndarray
    attack: tuple[np.ndarray, np.ndarray]


def judges(setting: Setting) -> Judges:
    """Judges of this setting's models."""
    learner = setting.task.learner
    batch, places = _sequences(setting)
    batch = setting.read(batch)
    prompts, longest = _prompts(setting)

    def told(at: Variables, data: Batch) -> Any:
        return _in_blocks(lambda x, y: tell(learner.model.apply(at, x), y), data)

    def spoken(at: Variables, prompts: Any) -> Array:
        return generate(
            jax.random.key(0),
            learner.model,
            at,
            prompts,
            steps=longest,
            end=-1 if setting.words.end is None else setting.words.end,
        )

    def logits(at: Variables, data: Batch) -> Array:
        return learner.model.apply(at, data.inputs)

    rows = np.concatenate([places[part, "true"] for part in DIVERGED])
    task = setting.task
    return Judges(
        losses_of(task),
        over_models(task, told, batch),
        over_models(task, spoken, prompts),
        over_models(task, logits, take(batch, rows)),
        _relearned(setting),
        prober(setting) if setting.config.probed else None,
        places,
    )


def divergences(
    setting: Setting, judged: Judges, said: np.ndarray, oracles: np.ndarray
) -> np.ndarray:
    """(models, oracles, parts) mean KL(oracle ‖ model) per token [nats]."""
    batch, _ = _sequences(setting)
    rows = [judged.places[part, "true"] for part in DIVERGED]
    targets = take(batch, np.concatenate(rows)).targets

    def one(now: Any, before: Any) -> Array:
        seen = asked(now, targets)
        return seen.mean(divergence(before, seen.outputs))

    pair = jax.jit(one)
    ends = np.cumsum([len(own) for own in rows])[:-1]
    return np.array(
        [
            [[part.mean() for part in np.split(pair(m, o), ends)] for o in oracles]
            for m in said
        ]
    )


def heard(setting: Setting, judged: Judges, told: Told, spoken: np.ndarray) -> Heard:
    """All numbers of one model, from what it says."""
    means = _means(told)
    values: dict[str, float] = {}
    truths: dict[str, np.ndarray] = {}
    tokens = dict(zip(SPOKEN, _split(setting, spoken), strict=True))
    for part in SPOKEN:
        places = judged.places
        true, other = (places[part, kind] for kind in ("true", "paraphrased"))
        wrong = places[part, "perturbed"].reshape(len(true), -1)
        truths[part] = truth_ratio(means[other], means[wrong])
        texts = [
            setting.words.decode([t for t in row if t >= 0]) for row in tokens[part]
        ]
        answers = [one.answer for one in setting.questions[part]]
        recalls = [
            rouge_l(text, answer)["recall"]
            for text, answer in zip(texts, answers, strict=True)
        ]
        chance = np.exp(means[true])
        if part in ("real", "world"):  # Among the wrong ones, in the same words.
            right, others = np.exp(means[other]), np.exp(means[wrong]).sum(1)
            chance = right / (right + others)
        values[f"{part} probability"] = float(chance.mean())
        values[f"{part} rouge"] = float(np.mean(recalls))
        if part == "retain":
            values["safe_refusal_rate"] = safe_refusal_rate(texts, REFUSALS)
        useful = forgotten_truth if part == "forget" else useful_truth
        values[f"{part} truth ratio"] = useful(truths[part])
    values["model_utility"] = model_utility(
        {
            f"{theirs} {what}": values[f"{ours} {what}"]
            for ours, theirs in _TOFU.items()
            for what in ("probability", "rouge", "truth ratio")
        }
    )
    own, unseen = (_rows(told, judged.places[p, "true"]) for p in ("forget", "holdout"))
    values["extraction_strength"] = float(extraction_strength(own).mean())
    values["exact_memorisation"] = float(exact_memorisation(own).mean())
    values["holdout probability"] = float(probability(unseen).mean())
    return Heard(values, truths["forget"], (min_k(own), min_k(unseen)))


def told_of(told: Any, model: int) -> Told:
    """What one of several models says."""
    return Told(*(np.asarray(field[model]) for field in told))


def _rows(told: Told, rows: np.ndarray) -> Told:
    return Told(*(field[rows] for field in told))


def _means(told: Told) -> np.ndarray:
    """(n,) mean log-probability of the tokens of each answer."""
    return np.log(np.maximum(probability(told), np.finfo(np.float64).tiny))


def _sequences(setting: Setting) -> tuple[Batch, dict[tuple[str, str], np.ndarray]]:
    """Every question with every answer, and where each kind stands."""
    pairs, places = [], {}
    for part in PARTS:
        questions = setting.questions[part]
        wrong = [pair for own in perturbed_pairs(questions) for pair in own]
        kinds = {"true": trained_pairs(questions)}
        if part != "holdout":
            kinds |= {"paraphrased": paraphrased_pairs(questions), "perturbed": wrong}
        for kind, own in kinds.items():
            places[part, kind] = len(pairs) + np.arange(len(own))
            pairs += own
    given = {"length": setting.length, "template": setting.template}
    return encoded(pairs, setting.words.encode, **given), places


def _prompts(setting: Setting) -> tuple[Array, int]:
    """(n, t) questions of ``SPOKEN``, padded behind; and tokens of an answer."""
    template, encode = setting.template, setting.words.encode
    asked = [one for part in SPOKEN for one in setting.questions[part]]
    rows = [encode(template.before + one.question + template.after) for one in asked]
    table = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    longest = max(len(encode(one.answer)) for one in asked) + 1
    return jnp.asarray(table), min(longest, setting.length)


def _split(setting: Setting, rows: np.ndarray) -> Iterator[np.ndarray]:
    ends = np.cumsum([len(setting.questions[part]) for part in SPOKEN])[:-1]
    yield from np.split(rows, ends)


def _in_blocks(one: Callable[..., Any], data: Batch) -> Any:
    """``one(inputs, targets)`` in blocks of rows, since outputs are large."""
    count = data.targets.shape[0]
    over = -count % _BATCH

    def blocks(leaf: Any) -> Array:
        wide = jnp.concatenate([leaf, leaf[:1].repeat(over, 0)]) if over else leaf
        return wide.reshape(-1, _BATCH, *leaf.shape[1:])

    parts = jax.lax.map(
        lambda pair: one(*pair), (blocks(data.inputs), blocks(data.targets))
    )
    return jax.tree.map(lambda p: p.reshape(-1, *p.shape[2:])[:count], parts)


def _relearned(setting: Setting) -> Callable[[Any], np.ndarray]:
    """Half of the forgotten is learnt again, and the other half watched."""
    learner, forget = setting.task.learner, setting.task.request.forget
    there = np.flatnonzero(np.asarray(forget.weights))
    attack, probe = take(forget, there[1::2]), take(forget, there[::2])
    every = max(1, setting.config.relearn // 6)

    def one(at: Variables, attack: Batch, probe: Batch) -> Array:
        curve = relearning_curve(
            jax.random.key(setting.config.seed),
            learner,
            at,
            attack,
            probe,
            points=max(1, setting.config.relearn // every),
            every=every,
            learning_rate=learner.recipe.learning_rate / 3,
        )
        return jnp.stack([curve[0], curve[-1], mean_height(curve)])

    return over_models(setting.task, one, attack, probe)
