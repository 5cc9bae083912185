"""Train the generators and the judges, edit, draw, and ask the judges."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.canvas.config import Config
from experiments.canvas.editors import EDITORS, Concept
from experiments.frame.bench import Bench, piece_of, rows_of
from experiments.frame.progress import progress
from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.canvas import Canvas, digit_canvas
from unlearn_jax.data.captions import captions
from unlearn_jax.diffusion.sampler import guided, sample
from unlearn_jax.diffusion.schedule import Schedule, cosine_schedule
from unlearn_jax.diffusion.train import fit_denoiser
from unlearn_jax.evaluation.cost import Compiled, compile_once, measured, run
from unlearn_jax.evaluation.frechet import frechet
from unlearn_jax.evaluation.judge import erasure, fit_judge, judged
from unlearn_jax.methods.editing.denoiser import text_maps, with_text_maps
from unlearn_jax.methods.editing.rece import adversarial_keys
from unlearn_jax.models import MODELS
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.models.diffusion_transformer import diffusion_transformer
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.storage.source import needed
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Variables

ORIGINAL, ORACLE, HELD_OUT = "original", "oracle", "held-out images"
LEARNS = (
    "unlearn_jax.data.canvas",
    "unlearn_jax.diffusion.train",
    "unlearn_jax.models.diffusion_transformer",
)
"""What decides, with all it imports, which generator a training ends with."""
_BATCH = 40
"""Images drawn at once."""
_SHOWN = 6
"""Columns of the picture."""


class Setting(NamedTuple):
    """Description: the images, the generator, and the class to erase."""

    config: Config
    canvas: Canvas
    denoiser: Denoiser
    schedule: Schedule

    @property
    def dataset(self) -> Dataset:
        """Images with their classes."""
        return self.canvas.dataset


class Judges(NamedTuple):
    """Description: compiled once, for every generator.

    Attributes:
        classes: images → class, or rejected.
        styles: images → style, or rejected.
        features: images → (n, f), of the judge of classes.
        right: Accuracy of both on held-out images, of those that were judged.
        rejected: Share of held-out images that were not.
    """

    classes: Callable[[Any], np.ndarray]
    styles: Callable[[Any], np.ndarray]
    features: Callable[[Any], np.ndarray]
    right: tuple[float, float]
    rejected: tuple[float, float]


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


def build(config: Config) -> Setting:
    """Draw the images.

    Raises:
        ValueError: a class that the digits do not have, the same class twice, or sizes
            of the generator that do not fit.
    """
    canvas = digit_canvas(seed=config.seed)
    classes = canvas.dataset.classes
    if max(config.target, config.anchor) >= classes or config.target == config.anchor:
        raise ValueError(
            f"got target {config.target} and anchor {config.anchor}, expected two of "
            f"the classes 0 to {classes - 1}"
        )
    denoiser = diffusion_transformer(
        (8, 8, 1),
        len(canvas.grammar.words),
        width=config.width,
        depth=config.depth,
        text_width=config.text_width,
        text_depth=min(config.depth, 2),
    )
    return Setting(config, canvas, denoiser, cosine_schedule(config.times))


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Accuracies, attacks, distances and costs of every editor and every oracle."""
    config = setting.config
    models = {}
    program = functools.cache(functools.partial(_program, setting))
    for name in (ORIGINAL, *(f"{ORACLE} {i}" for i in range(config.oracles))):
        words = {"recipe": config.recipe, "seed": config.seed, "model": _sizes(config)}
        words |= {"without": -1 if name == ORIGINAL else config.target, "name": name}
        made = bench.keep(
            f"generator/{name}",
            functools.partial(_trained, setting, program, name),
            known_by=words,
            code=needed(LEARNS),
        )
        models[name] = _variables(setting, made.arrays["params"])
        at = {"method": name}
        yield Row("train_seconds", made.data["seconds"], "s", at)
        yield Row("train_cpu_seconds", made.data["cpu_seconds"], "s", at)
        yield Row("train_loss", made.data["loss"], "1", at)
    judges = _judges(setting)
    for kind, right, silent in zip(
        ("class", "style"), judges.right, judges.rejected, strict=True
    ):
        yield Row("judge_accuracy", right, "1", {"method": HELD_OUT, "kind": kind})
        yield Row("judge_rejects", silent, "1", {"method": HELD_OUT, "kind": kind})
    names = [*models, *config.methods]
    studio = Studio(setting, judges, models)
    with bench.progress("draw", len(names)) as advance:
        for name in names:
            made = bench.keep(f"drawn/{name}", functools.partial(studio.judge, name))
            bench.publish(f"grid/{name}", made.arrays["grid"])
            yield from rows_of(made)
            advance(1)


def _sizes(config: Config) -> list[int]:
    return [config.width, config.text_width, config.depth, config.times]


def _fitted(setting: Setting, key: Any, data: Batch) -> tuple[Array, Array]:
    variables, loss = fit_denoiser(
        key, setting.denoiser, setting.schedule, data, setting.config.recipe
    )
    return ravel_pytree(variables.params)[0], loss


def _program(setting: Setting) -> Compiled:
    """One program for all generators: they differ by key and weights."""
    train = setting.dataset.splits.train
    data = Batch(train.inputs, setting.canvas.captions, train.weights)
    fit = functools.partial(_fitted, setting)
    return compile_once(fit, jax.random.key(0), data)


def _trained(setting: Setting, program: Callable[[], Compiled], name: str) -> Piece:
    """Parameters of one generator; an oracle never sees the target."""
    config, train = setting.config, setting.dataset.splits.train
    weights = np.array(train.weights)
    number = 0
    if name != ORIGINAL:
        weights[np.asarray(train.targets) == config.target] = 0
        number = 1 + int(name.split()[-1])
    data = Batch(train.inputs, setting.canvas.captions, weights)
    key = jax.random.fold_in(jax.random.key(config.seed), number)

    with progress(f"train {name}", 1):
        (params, loss), cost = run(program(), key, data)
    told = {
        "seconds": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "loss": float(loss),
    }
    return Piece({"params": np.asarray(params)}, told)


def _variables(setting: Setting, flat: Any) -> Variables:
    like = jax.eval_shape(setting.denoiser.model.init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like.params)
    return Variables(ravel_pytree(zeros)[1](jnp.asarray(flat)), {})


def _judges(setting: Setting) -> Judges:
    """Classifiers of class and style, trained on the training images."""
    config, dataset = setting.config, setting.dataset
    styles = len(setting.canvas.grammar.styles)
    own, test_own = (
        np.asarray(each) for each in (dataset.subclasses, dataset.test_subclasses)
    )
    train, test = dataset.splits
    groups = np.asarray(train.targets) * styles + own
    # Base images lie in runs of their styles: the region is told by half of them.
    told = (setting.canvas.test_bases % 2).astype(bool)
    made = []
    for number, (data, held, outputs) in enumerate(
        (
            (train, test, dataset.classes),
            (train._replace(targets=own), test._replace(targets=test_own), styles),
        )
    ):
        model = MODELS["mlp"]((8, 8, 1), outputs, widths=(128, 128))
        learner = Learner(model, cross_entropy, 0.0, config.judge)
        key = jax.random.fold_in(jax.random.key(config.seed), 1000 + number)
        calm = Batch(held.inputs[told], held.targets[told], held.weights[told])
        judge = fit_judge(key, learner, data, calm, groups)
        see = jax.jit(functools.partial(judged, model))
        look = jax.jit(model.features)

        def sees(images: Any, see: Any = see, judge: Any = judge) -> np.ndarray:
            return np.asarray(see(judge, jnp.asarray(images)))

        def looks(images: Any, look: Any = look, judge: Any = judge) -> np.ndarray:
            return np.asarray(look(judge.variables, jnp.asarray(images)))

        seen, truth = sees(held.inputs[~told]), np.asarray(held.targets)[~told]
        there = seen >= 0
        right = float(np.mean(seen[there] == truth[there])) if there.any() else 0.0
        made.append((sees, looks, right, float(1 - there.mean())))
    (classes, features, *own_class), (of_style, _, *own_style) = made
    right, rejected = zip(own_class, own_style, strict=True)
    return Judges(classes, of_style, features, right, rejected)


class Studio:
    """Draws with every generator from the same seeds, and has it judged.

    Args:
        setting: Images and generator.
        judges: Of what is drawn.
        models: The original and the oracles.
    """

    def __init__(self, setting: Setting, judges: Judges, models: dict[str, Variables]):
        config = setting.config
        self.setting, self.judges, self.models = setting, judges, models
        grammar = setting.canvas.grammar
        pairs = np.indices((config.samples, len(grammar.classes), len(grammar.styles)))
        _, classes, styles = pairs.reshape(3, -1)
        self.plain = Prompts(captions(grammar, styles, classes), classes, styles)
        own = classes == config.target
        self.told = Prompts(
            captions(grammar, styles, classes, seed=1000 + config.seed), classes, styles
        )
        self.own = own
        self.concept = Concept(
            setting.denoiser, models[ORIGINAL], grammar, config.target, config.anchor
        )
        self._drawn: dict[str, np.ndarray] = {}
        self._draw = jax.jit(self._program)
        self._encode = jax.jit(setting.denoiser.encode)
        self._attack = jax.jit(functools.partial(adversarial_keys, l2=config.attack_l2))

    def _program(self, key: Any, variables: Variables, text: Any) -> Array:
        setting, config = self.setting, self.setting.config
        null = jnp.zeros((1, setting.denoiser.tokens), jnp.int32)
        empty = setting.denoiser.encode(variables, null)

        def one(pair: Any) -> Array:
            key, words = pair
            shape = (len(words), *setting.denoiser.image_shape)
            start = jax.random.normal(key, shape)
            predict = guided(setting.denoiser, variables, words, empty, config.guidance)
            return sample(key, predict, setting.schedule, start, steps=config.steps)

        keys = jax.random.split(key, len(text))
        return jax.lax.map(one, (keys, text))

    def draw(self, variables: Variables, text: np.ndarray) -> np.ndarray:
        """Images of embeddings (n, t, d); image i has seed i, whatever the model."""
        count = len(text)
        rows = -(-count // _BATCH) * _BATCH
        filled = np.resize(text, (rows, *text.shape[1:]))
        batches = jnp.asarray(filled).reshape(-1, _BATCH, *text.shape[1:])
        key = jax.random.key(2000 + self.setting.config.seed)
        drawn = self._draw(key, variables, batches)
        return np.asarray(drawn).reshape(rows, *drawn.shape[2:])[:count]

    def encode(self, variables: Variables, tokens: np.ndarray) -> np.ndarray:
        """Embeddings of prompts."""
        return np.asarray(self._encode(variables, jnp.asarray(tokens)))

    def plain_images(self, name: str) -> np.ndarray:
        """What a trained generator draws for plain prompts; drawn once."""
        if name not in self._drawn:
            model = self.models[name]
            text = self.encode(model, self.plain.tokens)
            self._drawn[name] = self.draw(model, text)
        return self._drawn[name]

    def judge(self, name: str) -> Piece:
        """All numbers of a generator or an editor, and its line of the picture."""
        at = {"method": name}
        rows = []
        if name in self.models:
            variables, images = self.models[name], self.plain_images(name)
        else:
            variables, seconds = self._edited(name)
            rows.append(Row("edit_seconds", seconds, "s", at))
            images = self.draw(variables, self.encode(variables, self.plain.tokens))
        rows += self._accuracies(name, images, self.plain, "plain")
        said = self.draw(variables, self.encode(variables, self.told.tokens))
        rows += self._accuracies(name, said, self.told, "paraphrase")
        rows.append(Row("attack", self._attacked(name, variables), "1", at))
        rows += self._distances(name, images)
        shown = [*np.flatnonzero(self.own)[:_SHOWN], *self._beside()]
        return piece_of(rows, {"grid": images[shown]})

    def _beside(self) -> list[int]:
        """Prompts of other classes in the picture: the anchor and its neighbours."""
        config, first = self.setting.config, {}
        for i, label in enumerate(self.plain.classes):
            first.setdefault(int(label), i)
        labels = [config.anchor, *(c for c in first if c != config.anchor)]
        kept = [c for c in labels if c != config.target][:_SHOWN]
        styles = len(self.setting.canvas.grammar.styles)
        return [first[label] + number % styles for number, label in enumerate(kept)]

    def _edited(self, name: str) -> tuple[Variables, float]:
        """The original after an editor, and seconds of its compiled program.

        Prompts are encoded within it.
        """

        def edited(variables: Variables) -> Any:
            return EDITORS[name](self.concept._replace(variables=variables))

        original = self.models[ORIGINAL]
        maps, cost = measured(edited, original)
        return with_text_maps(self.setting.denoiser, original, maps), cost.seconds

    def _accuracies(
        self, name: str, images: np.ndarray, asked: Prompts, prompts: str
    ) -> Iterator[Row]:
        config = self.setting.config
        seen = self.judges.classes(images)
        found = erasure(
            asked.classes,
            seen,
            target=config.target,
            classes=self.setting.dataset.classes,
            other_asked=asked.styles,
            other_seen=self.judges.styles(images),
        )
        at = {"method": name, "prompts": prompts}
        for metric in ("unlearned", "in_domain", "cross_domain", "rejected"):
            yield Row(metric, getattr(found, metric), "1", at)
        for place, share in enumerate(found.went):
            yield Row("went", float(share), "1", {**at, "to": place})

    def _attacked(self, name: str, variables: Variables) -> float:
        """Share of the target's images that the closed-form attack brings back."""
        config, own = self.setting.config, self.own
        reference = self.models[ORIGINAL] if name not in self.models else variables
        text = self.encode(reference, self.plain.tokens[own])
        maps, before = (
            text_maps(self.setting.denoiser, each) for each in (variables, reference)
        )
        rows = jnp.asarray(text.reshape(-1, text.shape[-1]))
        found = self._attack(maps, before, rows)
        images = self.draw(variables, np.asarray(found).reshape(text.shape))
        return float(np.mean(self.judges.classes(images) == config.target))

    def _distances(self, name: str, images: np.ndarray) -> Iterator[Row]:
        """From held-out images, from oracles, and from the original, seed by seed."""
        at, retained = {"method": name}, ~self.own
        config, test = self.setting.config, self.setting.dataset.splits.test
        kept = np.asarray(test.targets) != config.target
        features = self.judges.features
        ours = features(images[retained])
        apart = frechet(ours, features(test.inputs[kept]))
        yield Row("frechet_held_out", apart, "1", at)
        oracles = [n for n in self.models if n.startswith(ORACLE) and n != name]
        for part, where in (("retained", retained), ("forgotten", self.own)):
            if where.sum() < 2:
                continue
            of_oracles = [
                frechet(features(images[where]), features(self.plain_images(o)[where]))
                for o in oracles
            ]
            if of_oracles:
                told = {**at, "part": part}
                yield Row("frechet_oracle", float(np.mean(of_oracles)), "1", told)
        change = np.abs(images - self.plain_images(ORIGINAL))[retained]
        yield Row("same_seed_change", float(change.mean()), "1", at)
