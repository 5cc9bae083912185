"""Train the generator, tune it under every mask, and under those that are found."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.frame.bench import Bench, piece_of, rows_of
from experiments.freezing.setting import RULES, Setting
from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.diffusion.sampler import generate
from unlearn_jax.diffusion.train import fit_denoiser
from unlearn_jax.methods.erasing.freeze_guard import freeze_as_guard, rounded
from unlearn_jax.methods.erasing.images import noisy
from unlearn_jax.methods.erasing.layer_masks import (
    Groups,
    every_mask,
    grouped,
    tuned_under,
)
from unlearn_jax.methods.erasing.memory_control import (
    nearest_ratio,
    remembered_by_text,
    searched,
)
from unlearn_jax.methods.erasing.tune import slope_of
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.storage.source import needed
from unlearn_jax.types import Batch, Params, Variables

_LEARNS = (
    "unlearn_jax.data.canvas",
    "unlearn_jax.diffusion.train",
    "unlearn_jax.models.diffusion_transformer",
)
_COPY = 0.5
"""An image that is twice as near to one kept image as to any other is a copy."""


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """What users learn under each mask, and what is remembered under each."""
    config = setting.config
    made = bench.keep(
        "generator",
        functools.partial(_trained, setting),
        known_by={
            "recipe": config.recipe,
            "seed": config.seed,
            "model": [config.width, config.depth, config.times],
            "without": [config.target, config.innocent],
        },
        code=needed(_LEARNS),
    )
    like = jax.eval_shape(setting.generator.denoiser.model.init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like.params)
    params = ravel_pytree(zeros)[1](jnp.asarray(made.arrays["params"]))
    groups = grouped(params, RULES)
    for name, part in (("guard", _guarded), ("memory", _remembered)):
        with bench.progress(name, 2 ** len(groups.names)) as advance:
            work = functools.partial(part, setting, params, groups, advance)
            yield from rows_of(bench.keep(name, work))


def _trained(setting: Setting) -> Piece:
    generator, config = setting.generator, setting.config

    @jax.jit
    def fitted(key: Any, data: Batch) -> Any:
        given = generator.denoiser, generator.schedule, data, config.recipe
        return fit_denoiser(key, *given)

    variables, _ = fitted(jax.random.key(config.seed), setting.part("seen"))
    return Piece({"params": np.asarray(ravel_pytree(variables.params)[0])}, {})


def _loss(setting: Setting, *names: str) -> Callable[..., Any]:
    """Mean squared error of a pixel's noise, on 64 images of each part."""

    def loss(key: Any, params: Params, constants: Any) -> Any:
        parts = [constants[name] for name in names]
        return jnp.mean(_errors(setting, key, params, parts, count=64, drop=0.1))

    return loss


def _errors(
    setting: Setting,
    key: Any,
    params: Params,
    parts: Sequence[Batch],
    *,
    count: int = 500,
    drop: float = 0.0,
) -> Any:
    """Mean error of each part, drawn with the same key; all in one pass."""
    generator = setting.generator
    drawn = [noisy(key, generator, part, count, drop=drop) for part in parts]
    batch = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *drawn)
    objective = diffusion_objective(generator.denoiser)
    errors = objective.example_losses(params, batch) / 32
    return jnp.mean(errors.reshape(len(parts), count), axis=1)


def _guarded(
    setting: Setting, params: Params, groups: Groups, advance: Callable[[int], None]
) -> Piece:
    config = setting.config
    key = jax.random.key(5000 + config.seed)
    parts = {name: setting.part(name) for name in ("target", "innocent")}
    unseen = {name: setting.part(name, test=True) for name in ("target", "innocent")}
    target, innocent = (_loss(setting, name) for name in parts)
    both = _loss(setting, *parts)

    @jax.jit
    def after(params: Params, free: Any, parts: Any, unseen: Any) -> Any:
        rates = {"steps": config.user_steps, "learning_rate": config.user_rate}
        given = key, params, slope_of(both), parts, groups, free
        moved = tuned_under(*given, **rates)
        return _errors(setting, key, moved, [unseen[name] for name in parts])

    @jax.jit
    def learnt(params: Params, parts: Any) -> Any:
        return freeze_as_guard(
            jax.random.fold_in(key, 1),
            params,
            target,
            innocent,
            parts,
            groups,
            share=config.frozen / len(groups.names),
            steps=config.guard_steps,
            user_rate=config.user_rate,
        )

    soft = np.asarray(learnt(params, parts))
    chosen = rounded(soft, config.frozen)
    rows = [
        Row("frozen_softly", float(value), "1", {"group": name})
        for name, value in zip(groups.names, soft, strict=True)
    ]
    rows.append(Row("chosen", 1.0, "1", {"mask": _code(chosen)}))
    for frozen in every_mask(len(groups.names)):
        at = {"mask": _code(frozen)}
        found = after(params, jnp.asarray(~frozen), parts, unseen)
        for name, value in zip(parts, found, strict=True):
            rows.append(Row(f"{name}_loss", float(value), "1", at))
        advance(1)
    return piece_of(rows)


def _remembered(
    setting: Setting, params: Params, groups: Groups, advance: Callable[[int], None]
) -> Piece:
    config, generator = setting.config, setting.generator
    key = jax.random.key(6000 + config.seed)
    whole, unseen = (setting.part("innocent", test=test) for test in (False, True))
    few = jax.tree.map(lambda leaf: leaf[: config.repeated], whole)
    tokens = np.resize(few.targets, (config.samples, few.targets.shape[1]))

    @jax.jit
    def after(params: Params, free: Any, few: Batch, unseen: Batch) -> Any:
        rates = {"steps": config.memory_steps, "learning_rate": config.user_rate}
        slope = slope_of(_loss(setting, "few"))
        given = key, params, slope, {"few": few}, groups, free
        moved = tuned_under(*given, **rates)
        variables = Variables(moved, {})
        told = {"steps": generator.steps, "guidance": 2.0}
        ask = key, generator.denoiser, variables, generator.schedule, tokens
        drawn = generate(*ask, **told)
        rolls = noisy(key, generator, few, 64).inputs
        points = rolls["image"], rolls["time"], rolls["tokens"]
        recalled = jnp.max(remembered_by_text(generator, variables, *points))
        return drawn, recalled, _errors(setting, key, moved, [unseen])[0]

    table: dict[str, tuple[float, float]] = {}
    rows = []
    for free in every_mask(len(groups.names)):
        drawn, recalled, cost = after(params, jnp.asarray(free), few, unseen)
        copies = float(np.mean(nearest_ratio(drawn, few.inputs) < _COPY))
        at = {"mask": _code(free)}
        table[_code(free)] = float(recalled), float(cost)
        rows.append(Row("copies", copies, "1", at))
        rows.append(Row("recalled", float(recalled), "1", at))
        rows.append(Row("unseen_loss", float(cost), "1", at))
        advance(1)
    for number in range(10):
        asked, _ = searched(
            number,
            lambda mask: table[_code(mask)],
            len(groups.names),
            budget=config.budget,
        )
        told = {"search": number}
        rows += [Row("asked", 1.0, "1", {**told, "mask": _code(m)}) for m in asked]
    return piece_of(rows)


def _code(mask: Any) -> str:
    return "".join("01"[int(own)] for own in np.asarray(mask))
