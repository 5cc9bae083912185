"""Who looks at what is drawn: which digit, and how sure."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.generators.scene import Setting
from unlearn_jax.evaluation.judge import Judge, fit_judge, judged
from unlearn_jax.evaluation.votes import chances_by
from unlearn_jax.models import MODELS
from unlearn_jax.models.model import Model
from unlearn_jax.results.rows import Row
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch

HELD_OUT = "held-out images"


class Eye(NamedTuple):
    """Description: a judge with its net.

    Attributes:
        model: The net of its features.
        judge: Its parameters, and the region in which it is asked.
    """

    model: Model
    judge: Judge

    def sees(self, images: np.ndarray) -> np.ndarray:
        """The digit of each image, or rejected."""
        return np.asarray(_judged(self.judge, jnp.asarray(images)))

    def chances(self, images: np.ndarray) -> np.ndarray:
        """(n, 10), whether or not it would be silent."""
        return np.asarray(_chances(self.judge.votes, jnp.asarray(images)))

    def features(self, images: np.ndarray) -> np.ndarray:
        """(n, f)."""
        found = self.model.features(self.judge.variables, jnp.asarray(images))
        return np.asarray(found)


def eye_of(setting: Setting) -> tuple[Eye, Iterator[Row]]:
    """Trained on the training images, its region told by half of the others.

    Images that are too near to a mean are judged all the same: an autoencoder draws
    means of pixels, so that it would be silent about most of what it draws.
    """
    config, held = setting.config, setting.test
    model = MODELS["mlp"]((8, 8, 1), 10, widths=(128, 128))
    learner = Learner(model, cross_entropy, 0.0, config.judge)
    half = np.arange(len(held.weights)) % 2 == 1
    calm = Batch(held.inputs[half], held.targets[half], held.weights[half])
    key = jax.random.fold_in(jax.random.key(config.seed), 1000)
    groups = np.asarray(setting.train.targets)
    judge = fit_judge(key, learner, setting.train, calm, groups)
    eye = Eye(model, judge._replace(bounds=judge.bounds.at[0].set(0.0)))
    seen, truth = eye.sees(held.inputs[~half]), np.asarray(held.targets)[~half]
    there, at = seen >= 0, {"method": HELD_OUT}
    right = float(np.mean(seen[there] == truth[there])) if there.any() else 0.0
    rows = (
        Row("judge_accuracy", right, "1", at),
        Row("judge_rejects", float(1 - there.mean()), "1", at),
    )
    return eye, iter(rows)


_judged, _chances = jax.jit(judged), jax.jit(chances_by)
