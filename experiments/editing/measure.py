"""Take the requests one by one; draw after some of them, and ask the judges."""

import functools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.canvas import setting as base
from experiments.canvas.generators import ORIGINAL, generators
from experiments.canvas.judges import Judges, judges_of
from experiments.canvas.setting import Setting
from experiments.canvas.studio import Studio
from experiments.editing.config import Config
from experiments.editing.ways import WAYS, Given, batch
from experiments.frame.bench import Bench
from unlearn_jax import tree
from unlearn_jax.data.captions import captions, encoded, paraphrases
from unlearn_jax.methods.editing.denoiser import prompt_keys, text_maps, with_text_maps
from unlearn_jax.methods.editing.rows import anchor_rows, join_rows
from unlearn_jax.results.rows import Row
from unlearn_jax.types import Array, Params, Variables


class Sentences(NamedTuple):
    """Value: sentences, and what they name.

    Attributes:
        tokens: (n, t).
        anchors: (n, t), the same sentences with the digit that takes the place.
        classes: (n,).
        styles: (n,).
    """

    tokens: np.ndarray
    anchors: np.ndarray
    classes: np.ndarray
    styles: np.ndarray

    def part(self, rows: Any) -> "Sentences":
        """Some of them."""
        return Sentences(*(each[rows] for each in self))


def erasable(setting: Setting[Config]) -> Sentences:
    """Every sentence that names an odd digit, in random order; even ones are kept."""
    grammar = setting.wanted.grammar
    parts = []
    for label in range(1, len(grammar.classes), 2):
        for style in range(len(grammar.styles)):
            tokens = paraphrases(grammar, style, label)
            anchors = paraphrases(grammar, style, label - 1)
            named = np.full((2, len(tokens)), [[label], [style]])
            parts.append(Sentences(tokens, anchors, *named))
    joined = Sentences(*(np.concatenate(each) for each in zip(*parts, strict=True)))
    order = np.random.default_rng(setting.config.seed).permutation(len(joined.tokens))
    return joined.part(order)


def build(config: Config) -> Setting[Config]:
    """Draw the images.

    Raises:
        ValueError: as of ``experiments.canvas``; more requests than half the sentences,
            or more directions than embeddings have.
    """
    setting = base.build(config)
    most, there = max(config.counts), len(erasable(setting).tokens)
    if 2 * most > there:
        raise ValueError(
            f"got {most} requests, expected at most {there // 2} of {there} sentences, "
            "so that as many are left unasked"
        )
    if config.free > config.text_width:
        raise ValueError(
            f"free is {config.free}, expected at most text_width, {config.text_width}"
        )
    return setting


def measure(bench: Bench, setting: Setting[Config]) -> Iterator[Row]:
    """Accuracies after some requests, seconds of a request, distance from the batch."""
    config = setting.config
    sentences = erasable(setting)
    models, trained = generators(bench, setting, 0)
    yield from trained
    judges = judges_of(setting)
    yield from judges.rows()
    sequence = Sequence(setting, judges, models[ORIGINAL], sentences)
    yield from bench.rows("before", sequence.before)
    with bench.progress("edit", len(config.ways)) as advance:
        for name in config.ways:
            yield from bench.rows(f"way/{name}", functools.partial(sequence.rows, name))
            advance(1)


class Sequence:
    """The requests, the prompts that are drawn, and the generator before.

    Args:
        setting: Images and generator.
        judges: Of what is drawn.
        original: The generator.
        sentences: In the order of the requests; from the end on they stay unasked.
    """

    def __init__(
        self,
        setting: Setting[Config],
        judges: Judges,
        original: Variables,
        sentences: Sentences,
    ):
        config, grammar = setting.config, setting.wanted.grammar
        self.setting, self.judges, self.original = setting, judges, original
        self.studio, self.sentences = Studio(setting), sentences
        even = range(0, len(grammar.classes), 2)
        styles = range(len(grammar.styles))
        pairs = np.array([(c, s) for c in even for s in styles])
        pairs = np.tile(pairs, (config.samples, 1))
        tokens = captions(grammar, pairs[:, 1], pairs[:, 0])
        self.kept = Sentences(tokens, tokens, *pairs.T)
        prompts = np.concatenate(
            [np.unique(tokens, axis=0), encoded(grammar, "")[None]]
        )
        keys = prompt_keys(setting.denoiser, original, prompts)
        maps = text_maps(setting.denoiser, original)
        self.given = Given(maps, keys, config.preserve_weight)

    def before(self) -> list[Row]:
        """Of the generator as it is."""
        return list(self._drawn("before", 0, self.original))

    def rows(self, name: str) -> Iterator[Row]:
        """One way from the first request to the last."""
        config, way = self.setting.config, WAYS[name]
        step, maps_of = jax.jit(way.step, static_argnums=1), jax.jit(way.maps)
        begin = jax.jit(way.start, static_argnums=(1, 2))
        state = begin(self.given, config.l2, config.free)
        requests = [self._request(i) for i in range(max(config.counts))]
        jax.block_until_ready(step(self.given, config.l2, state, *requests[0]))
        seconds = []
        for number, request in enumerate(requests, 1):
            begun = time.perf_counter()
            state = jax.block_until_ready(step(self.given, config.l2, state, *request))
            seconds.append(time.perf_counter() - begun)
            if number in config.counts:
                maps = maps_of(self.given, state)
                at = {"way": name, "requests": number}
                if name == "carried":
                    apart = self._apart(maps, requests[:number])
                    yield Row("from_batch", apart, "1", at)
                yield from self._drawn(name, number, self._with(maps))
        yield Row("request_seconds", float(np.median(seconds)), "s", {"way": name})

    def _request(self, number: int) -> tuple[Array, Array, Array]:
        """Keys, anchors, and weights: 1 from the first word that differs on, else 0."""
        one = self.sentences.part([number])
        denoiser = self.setting.denoiser
        keys, anchors = (
            prompt_keys(denoiser, self.original, each)
            for each in (one.tokens, one.anchors)
        )
        differs = np.argmax(one.tokens[0] != one.anchors[0])
        weights = (np.arange(one.tokens.shape[1]) >= differs).astype(np.float32)
        return keys, anchors, jnp.asarray(weights)

    def _apart(self, maps: Params, requests: Any) -> float:
        """Relative distance of carried sums from all requests at once."""
        rows = join_rows(*(anchor_rows(self.given.maps, *each) for each in requests))
        whole = jax.jit(batch, static_argnums=1)(
            self.given, self.setting.config.l2, rows
        )
        change = tree.norm(tree.subtract(whole, self.given.maps))
        return float(tree.norm(tree.subtract(maps, whole)) / change)

    def _with(self, maps: Params) -> Variables:
        return with_text_maps(self.setting.denoiser, self.original, maps)

    def _drawn(self, name: str, number: int, variables: Variables) -> Iterator[Row]:
        """Shares of images that are as asked: kept, requested, first, unasked."""
        count = len(self.kept.tokens)
        least = min(self.setting.config.counts)
        first = np.arange(count) % least
        asked = np.arange(count) % max(number, least)
        parts = {
            "kept": self.kept,
            "first": self.sentences.part(first),
            "asked": self.sentences.part(asked),
            "unasked": self.sentences.part(-1 - np.arange(count)),
        }
        for part, sentences in parts.items():
            text = self.studio.encode(variables, sentences.tokens)
            images = self.studio.draw(variables, self.studio.noise(count), text)
            classes, styles = self.judges.classes(images), self.judges.styles(images)
            at = {"way": name, "requests": number, "part": part}
            right = classes == sentences.classes
            yield Row("class_right", float(np.mean(right)), "1", at)
            right = styles == sentences.styles
            yield Row("style_right", float(np.mean(right)), "1", at)
