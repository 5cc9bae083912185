"""A conditional variational autoencoder, and Selective Amnesia held by many things."""

from typing import Any

import jax
import numpy as np

from experiments.generators.scene import Method, Scene, Setting
from unlearn_jax.generators.evidence import (
    coded,
    decoded,
    evidence_objective,
    fit_variational,
)
from unlearn_jax.methods.erasing.amnesia_codes import (
    SOLVE,
    Labels,
    amnesia_codes,
    amnesia_codes_newton,
)
from unlearn_jax.models.variational import variational
from unlearn_jax.types import Batch, Variables


def scene(setting: Setting) -> Scene:
    """Labels in, images out; its loss is the negative evidence."""
    config = setting.config
    widths = (config.width, max(config.width // 2, 1))
    autoencoder = variational((8, 8, 1), 10, widths=widths)
    labels = np.tile(np.arange(10), config.samples)
    others = np.delete(np.arange(10), config.target)
    asked = Labels(np.array([config.target]), others)
    key = jax.random.key(4000 + config.seed)
    few = {"memories": setting.steps(2000), "points": setting.steps(5000)}

    def tuned(**options: Any) -> Method:
        steps = setting.steps(3000)

        def forget(key: Any, variables: Variables) -> Variables:
            return amnesia_codes(
                key, autoencoder, variables, asked, steps=steps, **few, **options
            )

        return forget

    def solved(kind: str, **options: Any) -> Method:
        solve = SOLVE._replace(kind=kind, kept=few["points"], **options)

        def forget(key: Any, variables: Variables) -> Variables:
            return amnesia_codes_newton(
                key,
                autoencoder,
                variables,
                asked,
                solve=solve,
                memories=few["memories"],
            )

        return forget

    def loss(variables: Variables, data: Batch) -> Any:
        batch = coded(key, autoencoder, data)
        return evidence_objective(autoencoder).risk(variables.params, batch)

    return Scene(
        init=autoencoder.model.init,
        fit=lambda key, data: fit_variational(key, autoencoder, data, config.recipe),
        labels=labels,
        draw=lambda variables: decoded(key, autoencoder, variables, labels),
        loss=loss,
        unit="negative evidence [nats]",
        methods={
            "amnesia": tuned(),
            "replay alone": tuned(weight=0.0),
            "nothing held": tuned(weight=0.0, replay_weight=0.0),
            "diagonal alone": tuned(replay_weight=0.0),
            "ekfac alone": tuned(replay_weight=0.0, kind="ekfac"),
            "five diagonal steps": solved("diagonal"),
            "five ekfac steps": solved("ekfac"),
            "five ekfac solves": solved("ekfac", products=20),
        },
        code=(
            "unlearn_jax.data.canvas",
            "unlearn_jax.generators.evidence",
            "unlearn_jax.models.variational",
        ),
    )
