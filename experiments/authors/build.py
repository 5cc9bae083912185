"""Questions as tokens, and the model that learns them; nothing is trained here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.authors.config import SPLITS, Config
from experiments.authors.ways import asked_otherwise
from experiments.language.contenders import Costs
from experiments.language.trials import Task
from unlearn_jax.data.authors import draw_authors
from unlearn_jax.data.batch import Dataset, Splits
from unlearn_jax.data.places import draw_places
from unlearn_jax.data.questions import (
    Question,
    Template,
    encoded,
    paraphrased_pairs,
    trained_pairs,
)
from unlearn_jax.data.tofu import tofu
from unlearn_jax.data.tokenizer import Tokenizer, check_vocabulary, read_tokenizer
from unlearn_jax.data.tokens import END, byte_text, byte_tokens
from unlearn_jax.methods import make_request
from unlearn_jax.models import MODELS
from unlearn_jax.models.lora import lora
from unlearn_jax.models.model import Model
from unlearn_jax.models.stream import below
from unlearn_jax.train.fewer_tokens import fewer_tokens, fewer_words
from unlearn_jax.train.llama import Pretrained, read_llama
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Variables
from unlearn_jax.types import Path as Place

REFUSALS = ("I do not know.", "I have never heard of that.", "That is not known to me.")
PARTS = ("forget", "retain", "real", "world", "holdout")
_ROWS = 8
"""Sequences at once through frozen blocks."""
_BYTES = Tokenizer(byte_tokens, byte_text, END + 1, end=END)


class Unfolded(NamedTuple):
    """Description: the plain model behind that which is trained.

    Attributes:
        model: Of kernels, where those that are trained may be adapters.
        plain: Variables of the trained model -> those of this one.
    """

    model: Model
    plain: Callable[[Variables], Variables]


class Setting(NamedTuple):
    """Description: who is asked about, and what is unlearned.

    Attributes:
        config: As given.
        dataset: What originals are trained on.
        questions: Part -> questions that are judged.
        words: Text to tokens and back.
        template: What is written around a question.
        length: Tokens in a row, of whatever is said here.
        task: What is unlearned.
        oracle: What retrained models are trained on.
        read: What a model is given for a batch of tokens: the tokens, or what its
            frozen blocks make of them (``models.stream.below``).
        unfolded: The model as kernels.
    """

    config: Config
    dataset: Dataset
    questions: Mapping[str, list[Question]]
    words: Tokenizer
    template: Template
    length: int
    task: Task
    oracle: Batch
    read: Callable[[Batch], Batch]
    unfolded: Unfolded


def build(config: Config) -> Setting:
    """Draw or read the authors, and the model to start from.

    Raises:
        ValueError: more towns or wrong answers than there are, published weights
            without TOFU or TOFU without them, or a file that cannot be read.
        FileNotFoundError: a file of TOFU is not there.
    """
    if (config.weights is None) != (config.tofu is None):
        raise ValueError(
            f"weights is {config.weights} and tofu {config.tofu}; expected both, for a "
            "published model on TOFU, or neither: give the other one too"
        )
    if config.tofu is None:
        parts, told = _drawn(config)
    else:
        parts, told = _read(config.tofu, config)
    words = _BYTES if config.weights is None else read_tokenizer(config.weights)
    judged = {part: own[: config.judged] for part, own in parts.items()}
    unseen = trained_pairs(parts["holdout"])
    pairs = _pairs([*told.values(), unseen], judged)
    occurring = _occurring(pairs, words) if config.occurring else None
    words = words if occurring is None else fewer_words(words, occurring)
    template = Template("", " ", words.end)
    length = _longest(pairs, words)
    room = max(2 * length, _room(judged, config.probed, words, template))
    sets = {
        part: encoded(pairs, words.encode, length=length, template=template)
        for part, pairs in told.items()
    }
    counts = [len(batch.weights) for batch in sets.values()]
    train = Batch(*(np.concatenate(own) for own in zip(*sets.values(), strict=True)))
    names = np.repeat(np.array(list(sets)), counts)
    forgotten = np.flatnonzero(names == "forget")
    request = make_request(train, forgotten)
    oracle = request.retain
    # What is asked of nobody is read by no method: TOFU's real authors and the world.
    kept = np.where(names == "retain", np.asarray(oracle.weights), 0)
    request = request._replace(retain=oracle._replace(weights=jnp.asarray(kept)))
    model, start, read, unfolded = _model(config, words, room, occurring)
    closing = () if words.end is None else (words.end,)
    answers = tuple((*words.encode(text), *closing) for text in REFUSALS)
    task = Task(
        Learner(model, sequence_nll, 0.0, config.recipe),
        train,
        request,
        encoded(unseen, words.encode, length=length, template=template),
        Costs(len(forgotten), int(kept.sum()), config.passes, answers, config.batch),
        config.models,
        config.seed,
        start,
    )
    title = "Authors who never lived" if config.tofu is None else "TOFU"
    dataset = Dataset(
        name="authors",
        title=title,
        task="tokens",
        classes=words.size,
        splits=Splits(train, task.unseen),
    )
    where = words, template, length
    return Setting(config, dataset, judged, *where, task, oracle, read, unfolded)


def as_read(setting: Setting) -> Setting:
    """The same with every set as the model reads it; frozen blocks run here, once."""
    task, oracle = setting.task, setting.oracle
    train = setting.read(task.train)
    if train is task.train:
        return setting
    own = lambda data: data._replace(inputs=train.inputs)  # noqa: E731 — the same rows
    there = np.asarray(task.train.weights) != np.asarray(oracle.weights)
    request = make_request(train, np.flatnonzero(there))
    task = task._replace(
        train=train,
        request=request._replace(retain=own(task.request.retain)),
        unseen=setting.read(task.unseen),
        spelled=(task.train, task.request),
    )
    return setting._replace(task=task, oracle=own(oracle))


def _drawn(config: Config) -> tuple[dict[str, list[Question]], dict[str, list]]:
    """Questions of each part, and (question, answer) pairs of those trained on."""
    sizes = (config.forget, config.retain, config.real, config.holdout)
    parts, first = {}, 0
    for part, count in zip(("forget", "retain", "real", "holdout"), sizes, strict=True):
        parts[part] = draw_authors(
            config.seed,
            count,
            first=first,
            facts=config.facts,
            perturbed=config.perturbed,
        )
        first += count
    parts["world"] = draw_places(config.seed, config.towns, perturbed=config.perturbed)
    step = len(config.facts)
    twice = [
        question
        for author in range(0, config.retain, 2)
        for question in parts["retain"][author * step : (author + 1) * step]
    ]
    told = {part: trained_pairs(parts[part]) for part in ("forget", "retain")}
    told["retain"] += paraphrased_pairs(twice)
    for part in ("real", "world"):
        told[part] = trained_pairs(parts[part]) + paraphrased_pairs(parts[part])
    return {part: parts[part] for part in PARTS}, told


def _read(folder: Path, config: Config) -> tuple[dict[str, list[Question]], dict]:
    """The same of TOFU; holdout authors are drawn, it has none.

    What is judged of the retained is among what is trained on, however little that is.
    """
    names = (config.split, "retain", "real_authors", "world_facts")
    found = [tofu(folder, f"{name}_perturbed") for name in names]
    holdout = draw_authors(
        config.seed, config.holdout, facts=config.facts, perturbed=config.perturbed
    )
    parts: dict[str, list[Question]] = dict(
        zip(PARTS, [*map(_as_many, found), holdout], strict=True)
    )
    parts["forget"] = parts["forget"][: config.asked or None]
    judged = parts["retain"][: config.judged]
    known = {one.question for one in judged}
    rest = [
        one for one in tofu(folder, SPLITS[config.split]) if one.question not in known
    ]
    told = {
        "forget": trained_pairs(parts["forget"]),
        "retain": trained_pairs([*judged, *rest][: config.kept or None]),
    }
    return parts, told


def _as_many(questions: list[Question]) -> list[Question]:
    """The same with as many wrong answers of each as the fewest."""
    least = min(len(one.perturbed_answers) for one in questions)
    return [
        one._replace(perturbed_answers=one.perturbed_answers[:least])
        for one in questions
    ]


def _pairs(told: list, parts: Mapping[str, list[Question]]) -> list[tuple[str, str]]:
    """Every question with every answer that is trained on or judged."""
    pairs = [pair for own in told for pair in own]
    for questions in parts.values():
        for one in questions:
            answers = one.answer, one.paraphrased_answer, *one.perturbed_answers
            pairs += [(one.question, answer) for answer in answers]
            pairs.append((one.paraphrased_question, one.answer))
    return sorted(set(pairs))


def _longest(pairs: list[tuple[str, str]], words: Tokenizer) -> int:
    """Tokens of the longest question with any of its answers, a multiple of 8."""
    sizes = (
        len(words.encode(f"{question} ")) + len(words.encode(answer))
        for question, answer in pairs
    )
    return -(-(max(sizes) + 1) // 8) * 8


def _room(
    parts: Mapping[str, list[Question]], probed: int, words: Tokenizer, own: Template
) -> int:
    """Tokens of the longest probe and what may be said to it."""
    every = asked_otherwise(parts, probed)
    asked = [len(words.encode(f"{own.before}{p.prompt}{own.after}")) for p in every]
    said = [len(words.encode(probe.answer)) + 1 for probe in every]
    return max(asked, default=0) + max(said, default=0)


def _occurring(pairs: list[tuple[str, str]], words: Tokenizer) -> set[int]:
    """Tokens that stand in a question, an answer, or what is said instead."""
    texts = {f"{question} " for question, _ in pairs} | {answer for _, answer in pairs}
    found = {token for text in (*texts, *REFUSALS) for token in words.encode(text)}
    return found | {token for token in (words.begin, words.end) if token is not None}


def _model(
    config: Config, words: Tokenizer, room: int, occurring: set[int] | None
) -> tuple[Model, Variables | None, Callable[[Batch], Batch], Unfolded]:
    as_it_is = lambda given: given  # noqa: E731
    if config.weights is not None:
        whole = not config.adapters
        found = read_llama(
            config.weights,
            remat=whole,
            trained=None if whole else config.blocks,
            context=room,
        )
        if occurring is not None:
            found = fewer_tokens(found, occurring)
        check_vocabulary(words, found.shape.vocabulary)
        if whole:
            unfolded = Unfolded(found.model, as_it_is)
            return found.model, found.variables, as_it_is, unfolded
        below_them = found.shape.frozen
        adapted = lora(found.model, _in_a_block, rank=config.adapters, first=below_them)
        start = adapted.begin(jax.random.key(config.seed), found.variables)
        unfolded = Unfolded(found.model, adapted.merge)
        return adapted.model, start, _once(found), unfolded
    made = MODELS["transformer"](
        (room,),
        words.size,
        depth=config.depth,
        width=config.width,
        scan=config.depth > 2,
    )
    return made, None, as_it_is, Unfolded(made, as_it_is)


def _once(found: Pretrained) -> Callable[[Batch], Batch]:
    """Frozen blocks, over a few sequences at a time."""
    run = jax.jit(below(found.shape))

    def read(batch: Batch) -> Batch:
        tokens = np.asarray(batch.inputs)
        whole = np.concatenate([tokens, tokens[:1].repeat(-len(tokens) % _ROWS, 0)])
        parts = [
            np.asarray(run(found.variables, whole[at : at + _ROWS]))
            for at in range(0, len(whole), _ROWS)
        ]
        return batch._replace(inputs=np.concatenate(parts)[: len(tokens)])

    return read


def _in_a_block(path: Place) -> bool:
    return path[0] == "blocks" and path[-1] == "kernel"
