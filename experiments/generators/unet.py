"""A U-Net under classes, and the methods that tune a denoiser, on all of it."""

from typing import Any

import jax
import numpy as np

from experiments.generators.scene import Method, Scene, Setting
from unlearn_jax.diffusion.draws import diffusion_objective, draw, noised
from unlearn_jax.diffusion.one_call import drawn_at_once
from unlearn_jax.diffusion.sampler import generate
from unlearn_jax.diffusion.schedule import cosine_schedule
from unlearn_jax.diffusion.train import fit_denoiser
from unlearn_jax.methods.erasing.amnesia import amnesia
from unlearn_jax.methods.erasing.esd import esd
from unlearn_jax.methods.erasing.images import Images
from unlearn_jax.methods.erasing.newton import Solve
from unlearn_jax.methods.erasing.newton_prompts import esd_newton
from unlearn_jax.methods.erasing.rollouts import Generator, Prompts
from unlearn_jax.methods.erasing.salun import salun
from unlearn_jax.methods.erasing.score_forgetting import score_forgetting
from unlearn_jax.models.unet import class_tokens, unet
from unlearn_jax.types import Batch, Variables

TIMES, STEPS, GUIDANCE = 200, 25, 2.0


def scene(setting: Setting) -> Scene:
    """Classes in, images out; its loss is that of noise."""
    config = setting.config
    width = max(config.width // 16, 2)
    denoiser = unet((8, 8, 1), 10, width=width, text_width=width)
    schedule = cosine_schedule(TIMES)
    generator = Generator(denoiser, schedule, steps=STEPS)
    labels = np.tile(np.arange(10), config.samples)
    asked = np.asarray(class_tokens(labels, 10))
    every = np.asarray(class_tokens(np.arange(10), 10))
    null = np.zeros((1, 1), np.int32)
    prompts = Prompts(
        every[[config.target]],
        every[[config.anchor]],
        np.concatenate([np.delete(every, config.target, 0), null]),
    )
    key = jax.random.key(4000 + config.seed)

    def captioned(data: Batch) -> Batch:
        return data._replace(targets=class_tokens(data.targets, 10))

    train = jax.tree.map(np.asarray, captioned(setting.train))
    own = np.asarray(setting.train.targets) == config.target
    forget, retain = (
        jax.tree.map(lambda leaf, which=which: leaf[which], train)
        for which in (own, ~own)
    )
    instead = np.repeat(prompts.anchor, int(own.sum()), 0)
    images = Images(forget, instead, retain)

    def after(method: Any, given: Any, **options: Any) -> Method:
        def forgets(key: Any, variables: Variables) -> Variables:
            return method(key, generator, variables, given, **options)

        return forgets

    def tuned(method: Any, given: Any, steps: int, **options: Any) -> Method:
        return after(method, given, steps=setting.steps(steps), **options)

    def fit(key: Any, data: Batch) -> Any:
        return fit_denoiser(key, denoiser, schedule, captioned(data), config.recipe)

    def drawn(variables: Variables) -> Any:
        options = {"steps": STEPS, "guidance": GUIDANCE}
        return generate(key, denoiser, variables, schedule, asked, **options)

    def loss(variables: Variables, data: Batch) -> Any:
        draws = draw(key, schedule, data.inputs, drop=0.0)
        batch = noised(schedule, captioned(data), draws)
        return diffusion_objective(denoiser).risk(variables.params, batch) / 32

    def at_once(variables: Variables) -> Any:
        return drawn_at_once(key, denoiser, variables, schedule, asked)

    distilled = {
        "sfd": 1.0,
        "sfd: published weight": 0.01,
        "sfd: forgetting nothing": None,
    }

    def distils(weight: float | None) -> Method:
        told = prompts if weight is not None else Prompts(every[:1], every[:1], every)
        own = {"weight": 1.0 if weight is None else weight, "learning_rate": 3e-4}
        return tuned(score_forgetting, told, 1000, **own)

    few = {"memories": setting.steps(300), "points": setting.steps(1000)}
    return Scene(
        init=denoiser.model.init,
        fit=fit,
        labels=labels,
        draw=drawn,
        loss=loss,
        unit="squared error of a pixel's noise",
        methods={
            "salun": tuned(salun, images, 200),
            "salun: random mask": tuned(salun, images, 200, saliency="random"),
            "esd-u": tuned(esd, prompts, 150, part="u", learning_rate=1e-4),
            "esd-u: retaining": tuned(esd, prompts, 150, part="u", retain_weight=5.0),
            "esd-u: five ekfac steps": after(
                esd_newton, prompts, part="u", solve=Solve(steps=5)
            ),
            "amnesia": tuned(amnesia, prompts, 200, **few),
            "amnesia: diagonal alone": tuned(
                amnesia, prompts, 200, replay_weight=0.0, weight=1e3, **few
            ),
            "amnesia: ekfac alone": tuned(
                amnesia,
                prompts,
                200,
                replay_weight=0.0,
                weight=1e3,
                kind="ekfac",
                **few,
            ),
            **{name: distils(weight) for name, weight in distilled.items()},
        },
        draws=dict.fromkeys(distilled, at_once),
        code=(
            "unlearn_jax.data.canvas",
            "unlearn_jax.diffusion.train",
            "unlearn_jax.models.unet",
        ),
    )
