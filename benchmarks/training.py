"""Time of training here: our nets against PyTorch's, an ensemble against single runs.

    python benchmarks/training.py [--quick]

Prints Markdown tables. Every table is one run of this script: contenders take turns,
round by round, and a number is the median over rounds, in wall time and in CPU time
(all threads; the steadier one where other programs share the cores). A step is forward,
backward and an SGD-with-momentum update on 128 examples drawn in random order; neither
compilation nor making the data is counted. The time of an epoch is extrapolated from
the steps that were timed.

PyTorch is an optional peer: where it is not installed its rows are missing and said to
be. It runs the same nets with its defaults, and once more with channels last.
"""

import argparse
import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from timing import Seconds, turns

from unlearn_jax.data.batch import from_arrays
from unlearn_jax.models import MODELS
from unlearn_jax.train.ensemble import fit_ensemble
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch
from unlearn_kernels.target import target_platform

BATCH = 128
CLASSES = 10
RECIPE = Recipe(
    epochs=1,
    batch_size=BATCH,
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=0.0,
    schedule="constant",
)


class Work(NamedTuple):
    """One net on one size of image, and the steps that a round takes."""

    title: str
    model: str
    image: tuple[int, int, int]
    epoch_examples: int
    steps: int
    quick_steps: int


WORKS = (
    Work("small CNN, 28x28x1", "cnn", (28, 28, 1), 60_000, 60, 20),
    Work("small CNN, 32x32x3", "cnn", (32, 32, 3), 50_000, 60, 20),
    Work("ResNet-9, 32x32x3", "resnet9", (32, 32, 3), 50_000, 4, 2),
)
MEMBERS = 8
ENSEMBLES = ((64, 32), (784, 128))


def main() -> None:
    """Run everything and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps and rounds")
    quick = parser.parse_args().quick
    rounds = 3 if quick else 7
    with_torch = importlib.util.find_spec("torch") is not None
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}", end=""
    )
    print(f" on {target_platform()}, {rounds} rounds\n")
    if not with_torch:
        print("PyTorch is not installed: the peer is skipped.\n")
    print(
        "| work | contender | ms per step | CPU ms per step | epoch, s (extrapolated)",
        end="",
    )
    print(" | wall, ours ÷ it | CPU, ours ÷ it |\n|---|---|---:|---:|---:|---:|---:|")
    for work in WORKS:
        steps = work.quick_steps if quick else work.steps
        data = images(work.image, steps * BATCH)
        contenders = {"unlearn_jax.train.fit": ours(work, data)}
        if with_torch:
            import torch_peer

            contenders |= torch_peer.contenders(work.model, data, BATCH)
        print_training(work, steps, turns(contenders, rounds))
    print_ensembles(20 if quick else 100, rounds)


def images(shape: tuple[int, ...], count: int) -> Batch:
    """Normal noise with random classes: the arithmetic does not depend on the data."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(count, *shape)).astype(np.float32)
    return from_arrays(inputs, draw.integers(0, CLASSES, count))


def ours(work: Work, data: Batch, arithmetic: str | None = None) -> Callable[[], Any]:
    """One epoch over ``data`` as one compiled loop; parameters are in float32."""
    compute = None if arithmetic is None else jnp.dtype(arithmetic)
    model = MODELS[work.model](work.image, CLASSES, compute_dtype=compute)
    learner = Learner(model, cross_entropy, recipe=RECIPE)
    run = jax.jit(lambda key, data: fit(key, learner, data))
    key, held = jax.random.key(0), jax.device_put(data)
    return lambda: jax.block_until_ready(run(key, held))


def print_training(work: Work, steps: int, seconds: dict[str, Seconds]) -> None:
    first = next(iter(seconds.values()))
    for name, one in seconds.items():
        epoch = one.wall / steps * work.epoch_examples / BATCH
        print(
            f"| {work.title} | {name} | {1e3 * one.wall / steps:.1f} "
            f"| {1e3 * one.cpu / steps:.1f} | {epoch:.1f} "
            f"| {first.wall / one.wall:.2f} | {first.cpu / one.cpu:.2f} |",
            flush=True,
        )


def print_ensembles(steps: int, rounds: int) -> None:
    print(f"\n{MEMBERS} MLPs, {steps} steps of {BATCH} examples each:\n")
    print("| net | parameters | contender | ms | CPU ms | runs ÷ ensemble, wall |")
    print("|---|---:|---|---:|---:|---:|")
    for features, hidden in ENSEMBLES:
        data = jax.device_put(images((features,), steps * BATCH))
        model = MODELS["mlp"]((features,), CLASSES, widths=(hidden,))
        learner = Learner(
            model, cross_entropy, recipe=replace(RECIPE, learning_rate=0.1)
        )
        keys = jax.random.split(jax.random.key(0), MEMBERS)

        def run(members: Any, learner=learner, data=data, keys=keys) -> Any:
            return jax.block_until_ready(
                fit_ensemble(keys, learner, data, members=members)
            )

        seconds = turns(
            {
                "one vmapped program": lambda run=run: run("vmap"),
                f"{MEMBERS} runs": lambda run=run: run("loop"),
            },
            rounds,
        )
        parameters = features * hidden + hidden + hidden * CLASSES + CLASSES
        vmapped, single = seconds.values()
        for name, one in seconds.items():
            print(
                f"| {features}-{hidden}-{CLASSES} | {parameters} | {name} "
                f"| {1e3 * one.wall:.0f} | {1e3 * one.cpu:.0f} "
                f"| {single.wall / vmapped.wall:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
