"""How much of TOFU, how much of the model, and for how long."""

from collections.abc import Mapping
from dataclasses import replace

from experiments.authors import build as authors
from experiments.authors.config import Config
from experiments.language.contenders import CONTENDERS
from unlearn_jax.train.recipe import Recipe

METHODS = ("identity", "graddiff", "npo", "signs", "retain_newton")


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale; all of them need weights and TOFU."""
    del data
    recipe = Recipe(
        epochs=8,
        batch_size=8,
        learning_rate=2e-3,
        optimizer="adam",
        weight_decay=0.0,
    )
    small = Config(
        holdout=4,
        judged=20,
        probed=0,
        asked=20,
        kept=40,
        adapters=8,
        occurring=True,
        methods=METHODS,
        recipe=recipe,
        trials=2,
        passes=6,
        relearn=3,
        models=2,
    )
    smoke = replace(
        small,
        scale="smoke",
        asked=4,
        kept=4,
        holdout=1,
        judged=2,
        facts=("birthplace", "genre"),
        methods=("identity", "npo"),
        recipe=replace(recipe, epochs=1, batch_size=4),
        trials=1,
        passes=2,
        relearn=2,
        models=1,
    )
    paper = replace(
        small,
        scale="paper",
        holdout=20,
        judged=300,
        asked=0,
        kept=0,
        adapters=0,
        occurring=False,
        methods=tuple(CONTENDERS),
        recipe=replace(recipe, epochs=5, batch_size=32, learning_rate=1e-5),
        trials=4,
        passes=20,
        relearn=30,
        models=5,
        batch=32,
    )
    return {"small": small, "smoke": smoke, "paper": paper}


def build(config: Config) -> authors.Setting:
    """As ``experiments.authors`` builds it, of published weights and TOFU alone.

    Raises:
        ValueError: one of them is not given, and as there.
    """
    if config.weights is None or config.tofu is None:
        raise ValueError(
            f"weights is {config.weights} and tofu {config.tofu}; expected a file of "
            "published weights and the folder of TOFU: give --weights and --tofu, or "
            "take experiments.authors, which draws its own"
        )
    return authors.build(config)
