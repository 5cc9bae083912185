"""What unrolled removal costs and leaves, by how its trace was made; CPU seconds.

    python benchmarks/removal_price.py [--nets 5] [--oracles 8] [--seed 40]

Digits, MLP 64-64, a random tenth and a class. Prints a Markdown table: CPU time of the
trace and of a request over that of one training (median of 5 calls after the first, all
threads), the mean gap of the forget set's accuracy to oracles, and the mean KL
divergence of the forget set's outputs from oracles, beside that between oracles.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.attribution.trace import (
    checkpoints_of,
    left_out,
    mean_loss,
    trace_of,
)
from unlearn_jax.data import DATASETS
from unlearn_jax.data.forget import class_set, random_set
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.models import MODELS
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.train.trajectory import fit_trajectory
from unlearn_jax.types import Array, Batch, PRNGKey, Variables

TRACES: dict[str, dict[str, Any]] = {
    "exact labels, all examples": {"labels": "exact", "examples": None},
    "sampled labels, all examples": {"labels": "sampled", "examples": None},
    "sampled labels, 1,000 examples": {"labels": "sampled", "examples": 1000},
}


def cpu(call: Callable[[], Any]) -> float:
    """Median CPU seconds of five calls after the first."""
    jax.block_until_ready(call())
    taken = []
    for _ in range(5):
        start = time.process_time()
        jax.block_until_ready(call())
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def main() -> None:
    """Train, remove, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", type=int, default=5)
    parser.add_argument("--oracles", type=int, default=8)
    parser.add_argument("--seed", type=int, default=40)
    asked = parser.parse_args()
    train = jax.tree.map(jnp.asarray, DATASETS["digits"].load(None).splits.train)
    model = MODELS["mlp"]((8, 8, 1), 10, widths=(64, 64))
    learner = Learner(model, cross_entropy, 0.0, Recipe(30, 64, 0.1))
    points = checkpoints_of(learner)
    keys = jax.random.split(jax.random.key(asked.seed), asked.nets)
    others = jax.random.split(jax.random.key(asked.seed + 1), asked.oracles)
    way = jax.jit(lambda key, data: fit_trajectory(key, learner, data, points=points))
    learn = jax.jit(lambda key, data: fit(key, learner, data))

    @jax.jit
    def outside(key: PRNGKey, trained: Variables, data: Batch) -> tuple[Array, Array]:
        other, out = left_out(key, learner, data)
        return mean_loss(learner, other, out), mean_loss(learner, trained, out)

    training = cpu(lambda: learn(keys[0], train))
    runs = [way(key, train) for key in keys]
    unseen = [
        outside(key, one, train) for key, (one, _) in zip(keys, runs, strict=True)
    ]
    listed = ", ".join(f"{float(loss):.3f}" for loss, _ in unseen)
    price = cpu(lambda: outside(keys[0], runs[0][0], train)) / training
    print(f"A training takes {1e3 * training:.0f} ms of CPU time. The loss on a tenth")
    print(f"left out costs {price:.2f} trainings: {listed}.\n")
    print("| request | trace | its price | request's price | gap forget | KL forget |")
    print("|---|---|---:|---:|---:|---:|")
    method = METHODS["unrolled_removal"].factory(learner)
    forget = jax.jit(method.forget)
    count = len(train.targets)
    requests = {
        "random:0.1": random_set(asked.seed, count, 0.1),
        "class:6": class_set(train.targets, 6),
    }

    def outputs(variables: Variables, data: Batch) -> Array:
        return jax.nn.log_softmax(model.apply(variables, data.inputs))

    def accuracy(logp: Array, data: Batch) -> float:
        hits = jnp.argmax(logp, axis=1) == data.targets
        return 100 * float(jnp.sum(data.weights * hits) / jnp.sum(data.weights))

    def divergence(logp: Array, other: Array, data: Batch) -> float:
        each = jnp.sum(jnp.exp(other) * (other - logp), axis=1)
        return float(jnp.sum(data.weights * each) / jnp.sum(data.weights))

    for name, gone in requests.items():
        request = make_request(train, gone)
        data = request.forget
        truths = [outputs(learn(key, request.retain), data) for key in others]
        right = np.mean([accuracy(each, data) for each in truths])
        pairs = [(a, b) for a in truths for b in truths if a is not b]
        floor = np.mean([divergence(a, b, data) for a, b in pairs])
        for title, options in TRACES.items():

            def make(
                key: PRNGKey,
                trained: Variables,
                pieces: Any,
                data: Batch,
                options: dict[str, Any] = options,
            ) -> Any:
                # A loss that costs nothing: the true one comes from ``unseen``.
                few = jax.tree.map(lambda leaf: leaf[:32], data)
                return trace_of(
                    key, learner, trained, pieces, data, held_out=few, **options
                )

            program = jax.jit(make)
            gaps, far = [], []
            for key, (trained, pieces), losses in zip(keys, runs, unseen, strict=True):
                trace = program(key, trained, pieces, train)
                held, seen = losses
                known = trace.unseen._replace(held_out=held, learned=seen)
                state = method.prepare(
                    key, trained, train, trace._replace(unseen=known)
                )
                moved, _ = forget(key, state, trained, request)
                found = outputs(moved, data)
                gaps.append(accuracy(found, data) - right)
                far.append(np.mean([divergence(found, t, data) for t in truths]))
            cost = cpu(lambda: program(keys[0], *runs[0], train)) / training  # noqa: B023 - called at once
            spent = cpu(lambda: forget(keys[0], state, runs[0][0], request)) / training  # noqa: B023 - called at once
            print(
                f"| {name} | {title} | {cost:.2f} | {spent:.2f} "
                f"| {np.mean(gaps):+.2f} | {np.mean(far):.3f} (oracles {floor:.3f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
