"""Originals and oracles: trained once, kept on disk, gone on with after a kill."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.frame.progress import progress
from unlearn_jax import tree
from unlearn_jax.evaluation.cost import compile_once
from unlearn_jax.storage.names import file_name
from unlearn_jax.storage.store import Store
from unlearn_jax.train import checkpoint
from unlearn_jax.train.ensemble import Members, choose_members
from unlearn_jax.train.fit import FitState, fit, fit_epoch, start_fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Variables


class Trained(NamedTuple):
    """Models of one kind with what they cost.

    Attributes:
        members: One Variables per model.
        seconds: Of one training run.
        compile_seconds: Paid once.
        peak_bytes: Of the compiled program; None where unknown.
    """

    members: list[Variables]
    seconds: float
    compile_seconds: float
    peak_bytes: int | None


def train_members(
    store: Store,
    name: str,
    keys: list[Any],
    learner: Learner,
    data: Batch,
    members: Members,
) -> Trained:
    """Train one model per key on the same weighted data, or read them from disk.

    Small models train as one program over members; large ones one after another, with a
    checkpoint after every epoch, so that a kill costs at most one epoch.
    """
    folder = store.folder / "models" / file_name(name)
    if members == "auto":
        members = choose_members(learner, data)
    places = [folder / f"{i}" for i in range(len(keys))]
    if store.has(name) and all(place.is_dir() for place in places):
        like = jax.eval_shape(learner.model.init, jax.random.key(0))
        models = [checkpoint.load(place, like) for place in places]
        return Trained(models, **store.load(name).data)
    train = _together if members == "vmap" else _one_by_one
    trained = train(folder, name, keys, learner, data)
    for place, model in zip(places, trained.members, strict=True):
        checkpoint.save(place, model)
    cost = trained._asdict()
    del cost["members"]
    store.save(name, data=cost)
    for epoch in folder.glob("*-epoch-*"):
        shutil.rmtree(epoch, ignore_errors=True)
    return trained


def _together(
    folder: Path, name: str, keys: list[Any], learner: Learner, data: Batch
) -> Trained:
    del folder

    def run_all(stacked: Any, shared: Batch) -> Variables:
        return jax.vmap(lambda key: fit(key, learner, shared))(stacked)

    stacked = jnp.stack(keys)
    with progress(f"train {name} ({len(keys)} at once)", 2) as advance:
        program = compile_once(run_all, stacked, data)
        advance(1)
        start = time.perf_counter()
        models = jax.block_until_ready(program.call(stacked, data))
        seconds = (time.perf_counter() - start) / len(keys)
        advance(1)
    models = [tree.member(models, i) for i in range(len(keys))]
    return Trained(models, seconds, program.compile_seconds, program.peak_bytes)


def _one_by_one(
    folder: Path, name: str, keys: list[Any], learner: Learner, data: Batch
) -> Trained:
    epochs = learner.recipe.epochs
    start = jax.jit(lambda key: start_fit(key, learner))
    like = jax.eval_shape(start, keys[0])
    program = compile_once(
        lambda key, state, batch: fit_epoch(key, learner, state, batch),
        keys[0],
        like,
        data,
    )
    models, seconds = [], []
    with progress(f"train {name}", len(keys) * epochs) as advance:
        for i, key in enumerate(keys):
            state, spent = _resume(folder, i, like, lambda key=key: start(key))
            advance(int(state.epochs_done))
            while int(state.epochs_done) < epochs:
                begin = time.perf_counter()
                state = jax.block_until_ready(program.call(key, state, data))
                spent += time.perf_counter() - begin
                _keep(folder, i, state, spent)
                advance(1)
            models.append(state.train.variables)
            seconds.append(spent)
    typical = sorted(seconds)[len(seconds) // 2]
    return Trained(models, typical, program.compile_seconds, program.peak_bytes)


def _keep(folder: Path, member: int, state: FitState, spent: float) -> None:
    """Save one epoch beside the last one, then drop the last one."""
    done = int(state.epochs_done)
    earlier = list(folder.glob(f"{member}-epoch-*"))
    checkpoint.save(
        folder / f"{member}-epoch-{done:05d}", (state, jnp.asarray(spent, jnp.float32))
    )
    for old in earlier:
        shutil.rmtree(old, ignore_errors=True)


def _resume(
    folder: Path, member: int, like: FitState, begin: Callable[[], FitState]
) -> tuple[FitState, float]:
    seconds = jax.ShapeDtypeStruct((), jnp.float32)
    for found in sorted(folder.glob(f"{member}-epoch-*"), reverse=True):
        state, spent = checkpoint.load(found, (like, seconds))
        return state, float(spent)
    return begin(), 0.0
