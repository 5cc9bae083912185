"""Two judges of what is drawn: of its class and of its style."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.canvas.setting import Setting
from unlearn_jax.evaluation.judge import fit_judge, judged
from unlearn_jax.models import MODELS
from unlearn_jax.results.rows import Row
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch

HELD_OUT = "held-out images"


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

    def rows(self) -> list[Row]:
        """How far both may be trusted."""
        made = []
        for kind, right, silent in zip(
            ("class", "style"), self.right, self.rejected, strict=True
        ):
            at = {"method": HELD_OUT, "kind": kind}
            made += [
                Row("judge_accuracy", right, "1", at),
                Row("judge_rejects", silent, "1", at),
            ]
        return made


def judges_of(setting: Setting[Any]) -> Judges:
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
        see = jax.jit(judged)
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
