"""A generator without labels: Adapt-then-Unlearn, and Text-to-Unlearn."""

from typing import Any

import jax
import numpy as np

from experiments.canvas.config import adam
from experiments.generators.scene import Method, Scene, Setting
from unlearn_jax.data.captions import captions
from unlearn_jax.generators.duel import Rates, fit_adversarial, generator_loss
from unlearn_jax.methods.erasing.repulsion import adapt_then_unlearn
from unlearn_jax.methods.erasing.text_directions import Weights, text_to_unlearn
from unlearn_jax.methods.erasing.text_mapper import Reader
from unlearn_jax.models.adversarial import adversarial
from unlearn_jax.models.contrastive import contrastive
from unlearn_jax.train.contrast import fit_contrastive
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

    def by_text(weights: Weights) -> Method:
        """The pair is trained within, on all captions: as a public one would be."""
        grammar = setting.canvas.grammar
        pair = contrastive((8, 8, 1), len(grammar.words), widths=(config.width,))
        digits = captions(grammar, np.zeros(10, int), np.arange(10))
        others = np.delete(digits, config.target, 0)
        reader = Reader(pair, digits[config.target], others)
        learnt = setting.train._replace(targets=setting.canvas.captions)
        recipe = adam(setting.steps(40), 2e-3)

        def forgets(key: Any, variables: Variables) -> Variables:
            first, second = jax.random.split(key)
            read, _ = fit_contrastive(first, pair, learnt, recipe)
            few = {"mapper_steps": setting.steps(300), "steps": setting.steps(800)}
            given = second, gan, variables, reader, read
            return text_to_unlearn(*given, weights=weights, **few)

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
            "text": by_text(Weights()),
            "text: direction 5": by_text(Weights(direction=5.0)),
            "text: nothing in its place": by_text(Weights(instead=0.0)),
        },
        code=(
            "unlearn_jax.data.canvas",
            "unlearn_jax.generators.duel",
            "unlearn_jax.models.adversarial",
        ),
    )
