"""A masked autoencoder that completes digits, and image-to-image forgetting."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.generators.scene import Method, Scene, Setting
from unlearn_jax.generators.masks import (
    fit_masked,
    hidden,
    left_half,
    masked_objective,
)
from unlearn_jax.methods.erasing.noise_codes import (
    SOLVE,
    noise_codes,
    noise_codes_closed,
    noise_codes_newton,
)
from unlearn_jax.models.masked import masked_autoencoder
from unlearn_jax.types import Batch, Variables


def scene(setting: Setting) -> Scene:
    """The left half of unseen digits in, the right one out; its loss is the error."""
    config, test = setting.config, setting.test
    width = max(config.width // 32 * 8, 8)
    autoencoder = masked_autoencoder((8, 8, 1), width=width, codes=width, heads=4)
    truth = np.asarray(test.targets)
    rows = np.concatenate(
        [np.flatnonzero(truth == digit)[: config.samples] for digit in range(10)]
    )
    asked = np.asarray(test.inputs)[rows]
    own = np.asarray(setting.train.targets) == config.target
    forget, retain = (_part(setting.train, which) for which in (own, ~own))

    def after(method: Callable[..., Variables], **options: Any) -> Method:
        def forgets(key: Any, variables: Variables) -> Variables:
            return method(key, autoencoder, variables, forget, retain, **options)

        return forgets

    def draw(variables: Variables) -> Any:
        batch = hidden(
            autoencoder,
            Batch(asked, truth[rows], np.ones(len(rows), np.float32)),
            left_half(autoencoder, len(rows)),
        )
        made = autoencoder.model.apply(variables, batch.inputs)
        return jnp.clip(made, -1, 1).reshape(len(rows), 8, 8, 1)

    def loss(variables: Variables, data: Batch) -> Any:
        seen = left_half(autoencoder, len(data.weights))
        batch = hidden(autoencoder, data, seen)
        return masked_objective(autoencoder).risk(variables.params, batch) / 16

    return Scene(
        init=autoencoder.model.init,
        fit=lambda key, data: fit_masked(key, autoencoder, data, config.recipe),
        labels=truth[rows],
        draw=draw,
        loss=loss,
        unit="squared error of a hidden pixel",
        methods={
            "adam": after(noise_codes, steps=setting.steps(300)),
            "closed form": after(noise_codes_closed),
            "closed form: equal weights": after(noise_codes_closed, strength=1.0),
            "five ekfac solves": after(noise_codes_newton),
            "five diagonal solves": after(
                noise_codes_newton, solve=SOLVE._replace(kind="diagonal")
            ),
        },
        code=(
            "unlearn_jax.data.canvas",
            "unlearn_jax.generators.masks",
            "unlearn_jax.models.masked",
        ),
    )


def _part(data: Batch, rows: np.ndarray) -> Batch:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], data)
