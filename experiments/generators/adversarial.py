"""A generator without labels against a critic, and Adapt-then-Unlearn."""

from typing import Any

import jax
import numpy as np

from experiments.generators.scene import Method, Scene, Setting
from unlearn_jax.generators.duel import Rates, fit_adversarial, generator_loss
from unlearn_jax.methods.erasing.repulsion import adapt_then_unlearn
from unlearn_jax.models.adversarial import adversarial
from unlearn_jax.types import Batch, Variables

_MARKED = (100, 1000)
"""Images that are marked as undesired, and as desired."""


def scene(setting: Setting) -> Scene:
    """Noise in, images out; its loss is the generator's, against its own critic.

    Images are marked by their labels in the training set: those of the target are
    undesired. (Published: drawn ones, marked by a classifier.)
    """
    config = setting.config
    widths = max(config.width // 2, 4), config.width
    gan = adversarial((8, 8, 1), widths=widths)
    key = jax.random.key(4000 + config.seed)
    count = 10 * config.samples
    passes = len(setting.train.weights) // config.recipe.batch_size
    rates = Rates(
        steps=config.recipe.epochs * passes,
        batch_size=config.recipe.batch_size,
        learning_rate=config.recipe.learning_rate,
    )
    own = np.asarray(setting.train.targets) == config.target
    undesired, desired = (
        jax.tree.map(
            lambda leaf, rows=rows: np.asarray(leaf)[rows],
            setting.train,
        )
        for rows in (
            np.flatnonzero(own)[: _MARKED[0]],
            np.flatnonzero(~own)[: _MARKED[1]],
        )
    )

    def after(**options: Any) -> Method:
        first = rates._replace(steps=setting.steps(300))
        second = rates._replace(steps=setting.steps(1500))

        def forgets(key: Any, variables: Variables) -> Variables:
            given = key, gan, variables, undesired, desired
            return adapt_then_unlearn(*given, adapt=first, unlearn=second, **options)

        return forgets

    def draw(variables: Variables) -> Any:
        codes = jax.random.normal(key, (count, gan.codes))
        return gan.images(variables.params["generator"], codes)

    def loss(variables: Variables, data: Batch) -> Any:
        codes = jax.random.normal(key, (len(data.weights), gan.codes))
        return generator_loss(gan, variables.params, codes)

    return Scene(
        init=gan.init,
        fit=lambda key, data: fit_adversarial(key, gan, data, rates),
        labels=None,
        draw=draw,
        loss=loss,
        unit="cost to the critic [nats], of drawn images instead",
        methods={
            "euclidean": after(strength=1.0),
            "fisher": after(strength=1.0, metric="fisher"),
            "no repulsion": after(strength=0.0),
            "euclidean, weight 10": after(strength=10.0),
            "fisher, weight 10": after(strength=10.0, metric="fisher"),
        },
        code=(
            "unlearn_jax.data.canvas",
            "unlearn_jax.generators.duel",
            "unlearn_jax.models.adversarial",
        ),
    )
