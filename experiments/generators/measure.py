"""Train the generators, make one forget by each method, draw, and ask the judge."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.frame.bench import Bench, piece_of, rows_of
from experiments.generators.judge import Eye, eye_of
from experiments.generators.kinds import KINDS
from experiments.generators.scene import Scene, Setting
from unlearn_jax.evaluation.cost import compile_once, measured, run
from unlearn_jax.evaluation.frechet import frechet
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.storage.source import needed
from unlearn_jax.types import Batch, Variables

ORIGINAL, ORACLE = "original", "oracle"
_SHOWN = 2
"""Images of each digit in the picture."""


def oracle_names(count: int) -> list[str]:
    """Of the generators that never saw what is forgotten."""
    return [f"{ORACLE} {i}" for i in range(count)]


def method_names(setting: Setting) -> list[str]:
    """Those that are asked for, or all that there are."""
    config = setting.config
    names = list(config.methods or KINDS[config.kind](setting).methods)
    return names[: config.most or None]


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Every number of the original, its oracles, and what each method leaves."""
    scene = KINDS[setting.config.kind](setting)
    models = {}
    for name in (ORIGINAL, *oracle_names(setting.config.oracles)):
        made = bench.keep(
            f"generator/{setting.config.kind} {name}",
            functools.partial(_trained, setting, scene, name),
            known_by=_known(setting, name),
            code=needed(scene.code),
        )
        models[name] = _variables(scene, made.arrays["params"])
        at = {"method": name}
        yield Row("train_seconds", made.data["seconds"], "s", at)
        yield Row("train_loss", made.data["loss"], "1", at)
    eye, told = eye_of(setting)
    yield from told
    gallery = Gallery(setting, scene, eye, models)
    bench.publish("shown", gallery.labels[gallery.columns])
    names = [*models, *method_names(setting)]
    with bench.progress("forget", len(names)) as advance:
        for name in names:
            made = bench.keep(f"drawn/{name}", functools.partial(gallery.judge, name))
            bench.publish(f"grid/{name}", made.arrays["grid"])
            yield from rows_of(made)
            advance(1)


def _known(setting: Setting, name: str) -> dict[str, object]:
    config = setting.config
    without = -1 if name == ORIGINAL else config.target
    return {
        "kind": config.kind,
        "recipe": config.recipe,
        "width": config.width,
        "seed": config.seed,
        "without": without,
        "name": name,
    }


def _trained(setting: Setting, scene: Scene, name: str) -> Piece:
    """Parameters of one generator; an oracle never sees what is forgotten."""
    train, number = setting.train, 0
    weights = np.array(train.weights)
    if name != ORIGINAL:
        weights[np.asarray(train.targets) == setting.config.target] = 0
        number = 1 + int(name.split()[-1])
    data = Batch(train.inputs, train.targets, weights)
    key = jax.random.fold_in(jax.random.key(setting.config.seed), number)
    program = compile_once(scene.fit, key, data)
    (variables, loss), cost = run(program, key, data)
    told = {"seconds": cost.seconds, "loss": float(loss)}
    return Piece({"params": np.asarray(ravel_pytree(variables)[0])}, told)


def _variables(scene: Scene, flat: np.ndarray) -> Variables:
    like = jax.eval_shape(scene.init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    return ravel_pytree(zeros)[1](jnp.asarray(flat))


class Gallery:
    """Draws with every generator from the same seeds, and has it judged.

    Args:
        setting: Images.
        scene: The kind of generator.
        eye: Who judges.
        models: The original and the oracles.
    """

    def __init__(
        self, setting: Setting, scene: Scene, eye: Eye, models: dict[str, Variables]
    ):
        self.setting, self.scene, self.eye, self.models = setting, scene, eye, models
        self._draw, self._loss = jax.jit(scene.draw), jax.jit(scene.loss)
        self._drawn: dict[str, np.ndarray] = {}
        asked = scene.labels
        self.labels = eye.sees(self.images(ORIGINAL)) if asked is None else asked
        self.own = self.labels == setting.config.target

    @property
    def columns(self) -> np.ndarray:
        """Which images the picture has: the forgotten digit's first."""
        seen = np.unique(self.labels)
        order = [self.setting.config.target, *seen[seen >= 0]]
        found = []
        for digit in dict.fromkeys(order):
            found += [*np.flatnonzero(self.labels == digit)[:_SHOWN]]
        return np.array(found or range(min(len(self.labels), 10 * _SHOWN)))

    def images(self, name: str) -> np.ndarray:
        """What a trained generator draws; drawn once."""
        if name not in self._drawn:
            self._drawn[name] = np.asarray(self._draw(self.models[name]))
        return self._drawn[name]

    def judge(self, name: str) -> Piece:
        """All numbers of a generator, and its line of the picture."""
        at = {"method": name}
        rows = []
        if name in self.models:
            variables, images = self.models[name], self.images(name)
        else:
            key = jax.random.fold_in(jax.random.key(self.setting.config.seed), 500)
            method = self.scene.methods[name]
            variables, cost = measured(method, key, self.models[ORIGINAL])
            rows.append(Row("method_seconds", cost.seconds, "s", at))
            rows.append(Row("method_cpu_seconds", cost.cpu_seconds, "s", at))
            draw = jax.jit(self.scene.draws.get(name, self._draw))
            images = np.asarray(draw(variables))
        broken = float(np.mean(~_finite(images)))
        rows.append(Row("broken", broken, "1", at))
        # A judge sees no digit in NaN: all of it would be forgotten, of this one too.
        if not broken:
            rows += [*self._accuracies(images, at), *self._distances(name, images, at)]
        rows += self._losses(variables, at)
        return piece_of(rows, {"grid": images[self.columns]})

    def _accuracies(self, images: np.ndarray, at: dict) -> Iterator[Row]:
        labels, own = self.labels, self.own
        target = self.setting.config.target
        seen, chances = self.eye.sees(images), self.eye.chances(images)[own]
        entropy = -np.sum(chances * np.log(np.maximum(chances, 1e-30)), axis=1)
        yield Row("share", float(np.mean(seen == target)), "1", at)
        yield Row("rejected", float(np.mean(seen[~own] < 0)), "1", at)
        if not own.any():
            return
        yield Row("unlearned", float(np.mean(seen[own] != target)), "1", at)
        yield Row("in_domain", float(np.mean((seen == labels)[~own])), "1", at)
        yield Row("chance_of_target", float(np.mean(chances[:, target])), "1", at)
        yield Row("entropy", float(np.mean(entropy)), "nats", at)
        places = np.where(seen[own] < 0, 10, seen[own])
        for place, count in enumerate(np.bincount(places, minlength=11)):
            told = {**at, "to": place}
            yield Row("went", float(count / own.sum()), "1", told)

    def _distances(self, name: str, images: np.ndarray, at: dict) -> Iterator[Row]:
        features = self.eye.features
        oracles = [
            n
            for n in self.models
            if n.startswith(ORACLE) and n != name and _finite(self.images(n)).all()
        ]
        for part, where in (("retained", ~self.own), ("forgotten", self.own)):
            if where.sum() < 2:
                continue
            apart = [
                frechet(features(images[where]), features(self.images(o)[where]))
                for o in oracles
            ]
            if apart:
                told = {**at, "part": part}
                yield Row("frechet_oracle", float(np.mean(apart)), "1", told)
        change = np.abs(images - self.images(ORIGINAL))[~self.own]
        if _finite(self.images(ORIGINAL)).all():
            yield Row("same_seed_change", float(change.mean()), "1", at)

    def _losses(self, variables: Variables, at: dict) -> Iterator[Row]:
        test = self.setting.test
        own = np.asarray(test.targets) == self.setting.config.target
        for part, rows in (("retained", ~own), ("forgotten", own)):
            data = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], test)
            value = float(self._loss(variables, data))
            yield Row("loss", value, "1", {**at, "part": part})


def _finite(images: np.ndarray) -> np.ndarray:
    """Which images are of numbers alone."""
    return np.all(np.isfinite(images.reshape(len(images), -1)), axis=1)
