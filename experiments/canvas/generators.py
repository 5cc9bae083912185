"""Generators are trained once, and found again: the original, and oracles."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.canvas.config import GeneratorConfig
from experiments.canvas.setting import Setting
from experiments.frame.bench import Bench
from experiments.frame.progress import progress
from unlearn_jax.diffusion.train import fit_denoiser
from unlearn_jax.evaluation.cost import Compiled, compile_once, run
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.storage.source import needed
from unlearn_jax.types import Array, Batch, Variables

ORIGINAL, ORACLE = "original", "oracle"
LEARNS = (
    "unlearn_jax.data.canvas",
    "unlearn_jax.diffusion.train",
    "unlearn_jax.models.diffusion_transformer",
)
"""What decides, with all it imports, which generator a training ends with."""


def oracle_names(count: int) -> list[str]:
    """Of the generators that never saw what is erased."""
    return [f"{ORACLE} {i}" for i in range(count)]


def generators(
    bench: Bench, setting: Setting[Any], oracles: int
) -> tuple[dict[str, Variables], list[Row]]:
    """The original and its oracles by name, and what their trainings took.

    Those that any run of any study has trained under the same folder are found.

    Args:
        bench: Of the run.
        setting: Its images, its generator, and what oracles never see.
        oracles: How many.
    """
    config = setting.config
    models, rows = {}, []
    program = functools.cache(functools.partial(_program, setting))
    for name in (ORIGINAL, *oracle_names(oracles)):
        words = {"recipe": config.recipe, "seed": config.seed, "model": _sizes(config)}
        without = -1 if name == ORIGINAL else setting.wanted.known_by
        made = bench.keep(
            f"generator/{name}",
            functools.partial(_trained, setting, program, name),
            known_by=words | {"without": without, "name": name},
            code=needed(LEARNS),
        )
        models[name] = _variables(setting, made.arrays["params"])
        at = {"method": name}
        rows += [
            Row("train_seconds", made.data["seconds"], "s", at),
            Row("train_cpu_seconds", made.data["cpu_seconds"], "s", at),
            Row("train_loss", made.data["loss"], "1", at),
        ]
    return models, rows


def _sizes(config: GeneratorConfig) -> list[int]:
    return [config.width, config.text_width, config.depth, config.times]


def _fitted(setting: Setting[Any], key: Any, data: Batch) -> tuple[Array, Array]:
    variables, loss = fit_denoiser(
        key, setting.denoiser, setting.schedule, data, setting.config.recipe
    )
    return ravel_pytree(variables.params)[0], loss


def _program(setting: Setting[Any]) -> Compiled:
    """One program for all generators: they differ by key and weights."""
    train = setting.dataset.splits.train
    data = Batch(train.inputs, setting.canvas.captions, train.weights)
    fit = functools.partial(_fitted, setting)
    return compile_once(fit, jax.random.key(0), data)


def _trained(
    setting: Setting[Any], program: Callable[[], Compiled], name: str
) -> Piece:
    """Parameters of one generator; an oracle never sees what is erased."""
    config, train = setting.config, setting.dataset.splits.train
    weights = np.array(train.weights)
    number = 0
    if name != ORIGINAL:
        seen = setting.wanted.numbers(train.targets, setting.dataset.subclasses)
        weights[seen == setting.wanted.target] = 0
        number = 1 + int(name.split()[-1])
    data = Batch(train.inputs, setting.canvas.captions, weights)
    key = jax.random.fold_in(jax.random.key(config.seed), number)

    with progress(f"train {name}", 1):
        (params, loss), cost = run(program(), key, data)
    told = {
        "seconds": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "loss": float(loss),
    }
    return Piece({"params": np.asarray(params)}, told)


def _variables(setting: Setting[Any], flat: Any) -> Variables:
    like = jax.eval_shape(setting.denoiser.model.init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like.params)
    return Variables(ravel_pytree(zeros)[1](jnp.asarray(flat)), {})
