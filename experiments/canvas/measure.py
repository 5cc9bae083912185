"""Train the generators and the judges, edit, draw, and ask the judges."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.canvas.config import Config
from experiments.canvas.departures import Departures
from experiments.canvas.forgotten import forgotten
from experiments.canvas.generators import ORIGINAL, generators
from experiments.canvas.judges import Judges, judges_of
from experiments.canvas.setting import Setting
from experiments.canvas.studio import Studio
from experiments.frame.bench import Bench, piece_of, rows_of
from unlearn_jax.data.captions import captions
from unlearn_jax.evaluation.judge import erasure
from unlearn_jax.methods.editing.denoiser import text_maps
from unlearn_jax.methods.editing.rece import adversarial_keys
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.types import Variables

_SHOWN = 6
"""Columns of the picture, of the target and of others."""


class Prompts(NamedTuple):
    """Value: what is asked, one row for each image.

    Attributes:
        tokens: (n, t).
        classes: (n,).
        styles: (n,).
    """

    tokens: np.ndarray
    classes: np.ndarray
    styles: np.ndarray


def measure(bench: Bench, setting: Setting[Config]) -> Iterator[Row]:
    """Accuracies, attacks, distances and costs of every editor and every oracle."""
    config = setting.config
    models, trained = generators(bench, setting, config.oracles)
    yield from trained
    judges = judges_of(setting)
    yield from judges.rows()
    names = [*models, *config.methods]
    gallery = Gallery(setting, judges, models)
    bench.publish("shown", gallery.shown())
    with bench.progress("draw", len(names)) as advance:
        for name in names:
            made = bench.keep(f"drawn/{name}", functools.partial(gallery.judge, name))
            bench.publish(f"grid/{name}", made.arrays["grid"])
            yield from rows_of(made)
            advance(1)


class Gallery:
    """Draws with every generator from the same seeds, and has it judged.

    Args:
        setting: Images and generator.
        judges: Of what is drawn.
        models: The original and the oracles.
    """

    def __init__(
        self, setting: Setting[Config], judges: Judges, models: dict[str, Variables]
    ):
        config, wanted = setting.config, setting.wanted
        self.setting, self.judges, self.models = setting, judges, models
        self.studio = Studio(setting, models[ORIGINAL])
        grammar = wanted.grammar
        pairs = np.indices((config.samples, len(grammar.classes), len(grammar.styles)))
        _, classes, styles = pairs.reshape(3, -1)
        self.plain = Prompts(captions(grammar, styles, classes), classes, styles)
        self.told = Prompts(
            captions(grammar, styles, classes, seed=1000 + config.seed), classes, styles
        )
        self.studio.asked = np.concatenate([self.plain.tokens, self.told.tokens])
        self.own = wanted.numbers(classes, styles) == wanted.target
        self.start = self.studio.noise(len(classes))
        self._drawn: dict[str, np.ndarray] = {}
        given = setting, judges, models, self.own, self.plain_images
        self.departures = Departures(*given)
        self._attack = jax.jit(functools.partial(adversarial_keys, l2=config.attack_l2))

    def images(self, name: str, variables: Variables, prompts: Prompts) -> np.ndarray:
        """What a generator draws for prompts; image i has seed i, whoever draws."""
        read = self.studio.read(name, variables, prompts.tokens)
        return self.studio.draw(variables, self.start, read)

    def plain_images(self, name: str) -> np.ndarray:
        """What a trained generator draws for plain prompts; drawn once."""
        if name not in self._drawn:
            self._drawn[name] = self.images(name, self.models[name], self.plain)
        return self._drawn[name]

    def judge(self, name: str) -> Piece:
        """All numbers of a generator or an editor, and its line of the picture."""
        at = {"method": name}
        rows = []
        if name in self.models:
            variables, images = self.models[name], self.plain_images(name)
        else:
            variables, cost = forgotten(
                name, self.setting, self.studio, self.models[ORIGINAL]
            )
            rows.append(Row("edit_seconds", cost.seconds, "s", at))
            rows.append(Row("edit_cpu_seconds", cost.cpu_seconds, "s", at))
            rows.append(Row("edit_peak_bytes", cost.peak_bytes, "B", at))
            images = self.images(name, variables, self.plain)
        rows += self._accuracies(name, images, self.plain, "plain")
        said = self.images(name, variables, self.told)
        rows += self._accuracies(name, said, self.told, "paraphrase")
        rows.append(Row("attack", self._attacked(name, variables), "1", at))
        rows += self.departures.rows(name, images, variables)
        return piece_of(rows, {"grid": images[self._columns()]})

    def shown(self) -> np.ndarray:
        """Class and style of each column of the picture."""
        at = self._columns()
        return np.stack([self.plain.classes[at], self.plain.styles[at]], 1)

    def _columns(self) -> list[int]:
        return [*np.flatnonzero(self.own)[:_SHOWN], *self._beside()]

    def _beside(self) -> list[int]:
        """Prompts of other things in the picture, one of each class."""
        first = {}
        for i, label in enumerate(self.plain.classes):
            if not self.own[i]:
                first.setdefault(int(label), []).append(i)
        labels = [self.setting.config.anchor, *first]
        kept = list(dict.fromkeys(label for label in labels if label in first))[:_SHOWN]
        return [
            first[label][number % min(len(first[label]), 4)]
            for number, label in enumerate(kept)
        ]

    def _accuracies(
        self, name: str, images: np.ndarray, asked: Prompts, prompts: str
    ) -> Iterator[Row]:
        wanted = self.setting.wanted
        seen = self.judges.classes(images), self.judges.styles(images)
        found = erasure(
            wanted.numbers(asked.classes, asked.styles),
            wanted.numbers(*seen),
            target=wanted.target,
            classes=wanted.size,
            other_asked=wanted.other(asked.classes, asked.styles),
            other_seen=wanted.other(*seen),
        )
        at = {"method": name, "prompts": prompts}
        for metric in ("unlearned", "in_domain", "cross_domain", "rejected"):
            yield Row(metric, getattr(found, metric), "1", at)
        for place, share in enumerate(found.went):
            yield Row("went", float(share), "1", {**at, "to": place})

    def _attacked(self, name: str, variables: Variables) -> float:
        """Share of the target's images that the closed-form attack brings back."""
        own, wanted = self.own, self.setting.wanted
        reference = self.models[ORIGINAL] if name not in self.models else variables
        text = self.studio.encode(reference, self.plain.tokens[own])
        maps, before = (
            text_maps(self.setting.denoiser, each) for each in (variables, reference)
        )
        rows = jnp.asarray(text.reshape(-1, text.shape[-1]))
        found = np.asarray(self._attack(maps, before, rows)).reshape(text.shape)
        images = self.studio.draw(variables, self.start[own], found)
        seen = wanted.numbers(self.judges.classes(images), self.judges.styles(images))
        return float(np.mean(seen == wanted.target))
