"""A generator after a row's method, whichever table the row is of."""

from typing import Any

import jax

from experiments.canvas.deactivate import LEARNERS
from experiments.canvas.editors import EDITORS, edited_by
from experiments.canvas.setting import Setting
from experiments.canvas.studio import Studio
from experiments.canvas.tuners import TUNERS, scene_of, tuned_by
from unlearn_jax.evaluation.cost import Cost, measured
from unlearn_jax.methods.editing.deactivation import check_specific
from unlearn_jax.methods.erasing.rollouts import Generator
from unlearn_jax.types import Variables

METHODS = {**EDITORS, **TUNERS}
"""Every name of a row."""


def forgotten(
    name: str, setting: Setting[Any], studio: Studio, original: Variables
) -> tuple[Variables, Cost]:
    """The generator after a method, and the cost of its compiled program.

    An editor encodes its prompts within it, a tuner draws its points; a guard that
    learns leaves what it has learned with the studio.

    Args:
        name: One of ``METHODS``.
        setting: Images and generator.
        studio: What is erased, for editors.
        original: Before.
    """
    if name in TUNERS:
        config = setting.config
        generator = Generator(setting.denoiser, setting.schedule, steps=config.steps)
        scene = scene_of(setting.wanted, setting.canvas, generator)
        key = jax.random.key(3000 + config.seed)
        return tuned_by(name, key, scene, original)
    if name in LEARNERS:
        found, cost = measured(
            lambda variables: LEARNERS[name](studio.concept(variables), studio.asked),
            original,
        )
        check_specific(found)
        studio.learned[name] = found
        return original, cost
    return measured(
        lambda variables: edited_by(name, studio.concept(variables)), original
    )
