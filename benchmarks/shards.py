"""Exact forgetting on digits: plain retraining, SISA, S3T and a ridge head, by price.

    python benchmarks/shards.py

For each: test accuracy with all rows, mean CPU seconds of a deletion (one row, drawn at
random; the first compiles and is left out), test accuracy after all deletions, and how
many numbers are kept.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from unlearn_jax.data.digits import digits
from unlearn_jax.methods.analytic import analytic
from unlearn_jax.methods.sharded import Sharded
from unlearn_jax.methods.sisa import sisa
from unlearn_jax.methods.stagewise import stagewise
from unlearn_jax.models import MODELS
from unlearn_jax.storage.contents import Contents
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch

SHAPE, CLASSES = (8, 8, 1), 10


def main(epochs: int, deletions: int, seed: int) -> None:
    """Print the table."""
    train, test = digits().splits
    learner = Learner(
        MODELS["mlp"](SHAPE, CLASSES, widths=(64, 64)),
        cross_entropy,
        0.0,
        Recipe(epochs=epochs, batch_size=64),
    )
    gone = np.random.default_rng(seed).permutation(len(train.targets))[:deletions]

    def right(scores: Any) -> float:
        return 100 * float(np.mean(np.asarray(scores).argmax(1) == test.targets))

    print(
        "| kind | accuracy (%) | CPU s per deletion | accuracy after | numbers kept |"
    )
    print("|---|---:|---:|---:|---:|")

    def told(
        name: str, start: float, seconds: list[float], end: float, kept: int
    ) -> None:
        spent = np.mean(seconds[1:]), np.std(seconds[1:]) / np.sqrt(len(seconds) - 1)
        print(
            f"| {name} | {start:.1f} | {spent[0]:.4f} ± {spent[1]:.4f} | {end:.1f} | "
            f"{kept:,} |",
            flush=True,
        )

    told("retraining", *plain(learner, train, test, gone, right))
    for shards, slices in ((5, 1), (5, 4)):
        chain = sisa(learner, train, len(train.targets), shards=shards, slices=slices)
        name = f"SISA, {shards} shards of {slices} slices"
        told(name, *chained(chain, train, test, gone, right))
    for orders in (1, 3):
        chain = stagewise(
            learner, train, len(train.targets), shards=5, slices=3, orders=orders
        )
        name = f"S3T, 5 shards of 3 slices, {orders} orders"
        told(name, *chained(chain, train, test, gone, right))
    told("ACU, 512 features", *ridge(train, test, gone, right))


def plain(
    learner: Learner, train: Batch, test: Batch, gone: Any, right: Callable[..., float]
) -> Any:
    """All of the training again, for each deletion."""
    key, weights = jax.random.key(0), np.array(train.weights)
    program = jax.jit(lambda data: fit(key, learner, data))
    model = program(train)
    start, seconds = right(learner.model.apply(model, test.inputs)), []
    for row in gone:
        weights[row] = 0
        begin = time.process_time()
        model = jax.block_until_ready(program(train._replace(weights=weights.copy())))
        seconds.append(time.process_time() - begin)
    kept = sum(leaf.size for leaf in jax.tree.leaves(model))
    return start, seconds, right(learner.model.apply(model, test.inputs)), kept


def chained(
    chain: Sharded, train: Batch, test: Batch, gone: Any, right: Callable[..., float]
) -> Any:
    """The stages that a deletion takes with it, in memory."""
    contents, rows = Contents(), np.arange(len(train.targets))
    state = chain.learn(chain.start(), rows, train.inputs, train.targets)
    served = chain.models(state, contents)
    start, seconds = right(chain.predict(served, test.inputs)), []
    for row in gone:
        begin = time.process_time()
        state = chain.forget(state, np.array([row]))
        served = jax.block_until_ready(chain.models(state, contents))
        seconds.append(time.process_time() - begin)
    end = right(chain.predict(served, test.inputs)) if served.votes.any() else np.nan
    names = [name for name in chain.names(state).flat if name]
    kept = sum(x.size for name in names for x in contents.load(str(name)).values())
    return start, seconds, end, kept


def ridge(train: Batch, test: Batch, gone: Any, right: Callable[..., float]) -> Any:
    """Sums without the row."""
    jax.config.update("jax_enable_x64", True)
    head = analytic(
        lambda x: np.asarray(x).reshape(len(x), -1),
        64,
        key=jax.random.key(0),
        secret=b"a key of this table",
        width=512,
    )
    inputs, targets = np.asarray(train.inputs), np.asarray(train.targets)
    state = head.learn(head.start(), inputs, targets)
    start, seconds = right(head.predict(state, test.inputs)), []
    for row in gone:
        begin = time.process_time()
        state = head.forget(state, inputs[[row]], targets[[row]])
        jax.block_until_ready(state.ridge.weight)
        seconds.append(time.process_time() - begin)
    kept = sum(np.size(leaf) for leaf in jax.tree.leaves(state))
    return start, seconds, right(head.predict(state, test.inputs)), kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--deletions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    main(asked.epochs, asked.deletions, asked.seed)
