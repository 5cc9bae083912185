"""How far a random removal should go, and what tells it; digits, MLP 64-64.

    python benchmarks/removal_goals.py [--nets 5] [--sets 7] [--oracles 8] [--seed 5000]

Prints how far goals of a forget set's loss lie from what nets trained without it have
(root of the mean square over nets and sets); the mean gap of the forget set's accuracy
by the length of the response, and its root of the mean square over sets in deviations
of as many oracles; and the loss on a tenth that training leaves out from an epoch on.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.attribution.trace import fit_traced, losses_of, mean_loss
from unlearn_jax.data import DATASETS
from unlearn_jax.data.forget import random_set
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.models import MODELS
from unlearn_jax.train.fit import fit, fit_epoch, start_fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch, PRNGKey, Scalar

EPOCHS = 30
MODEL = MODELS["mlp"]((8, 8, 1), 10, widths=(64, 64))
LEARNER = Learner(MODEL, cross_entropy, 0.0, Recipe(EPOCHS, 64, 0.1))


def forgotten_late(key: PRNGKey, data: Batch, seen: Any) -> Scalar:
    """Loss on a random tenth that is left out after so many epochs."""
    drawn = jax.random.permutation(key, len(data.weights)) < 0.1 * len(data.weights)
    rest = data._replace(weights=jnp.where(drawn, 0, data.weights))

    def epoch(number: Any, state: Any) -> Any:
        weights = jnp.where(number < seen, data.weights, rest.weights)
        return fit_epoch(key, LEARNER, state, data._replace(weights=weights))

    state = jax.lax.fori_loop(0, EPOCHS, epoch, start_fit(key, LEARNER))
    out = data._replace(weights=jnp.where(drawn, data.weights, 0))
    return mean_loss(LEARNER, state.train.variables, out)


def main() -> None:
    """Train, remove, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, number in {"nets": 5, "sets": 7, "oracles": 8, "seed": 5000}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    asked = parser.parse_args()
    data = jax.tree.map(jnp.asarray, DATASETS["digits"].load(None).splits.train)
    learn = jax.jit(lambda key, data: fit(key, LEARNER, data))
    traced = jax.jit(lambda key, data: fit_traced(key, LEARNER, data))
    every = jax.jit(lambda at, data: losses_of(LEARNER, at, data))
    right = jax.jit(lambda at: MODEL.apply(at, data.inputs).argmax(1) == data.targets)
    keys = jax.random.split(jax.random.key(asked.seed), asked.nets)
    others = jax.random.split(jax.random.key(asked.seed + 1), asked.oracles)
    sets = [
        random_set(asked.seed + 1000 + i, len(data.targets), 0.1)
        for i in range(asked.sets)
    ]
    requests = [make_request(data, gone) for gone in sets]
    runs = [traced(key, data) for key in keys]
    true, hits = [], []
    for gone, request in zip(sets, requests, strict=True):
        oracles = [learn(key, request.retain) for key in others]
        true.append(np.mean([np.asarray(every(o, data))[gone] for o in oracles]))
        hits.append([100 * np.asarray(right(o))[gone].mean() for o in oracles])
    general = np.array([[float(trace.unseen.held_out)] for _, trace in runs])
    own = np.array(
        [
            [np.asarray(every(model, data))[gone].mean() for gone in sets]
            for model, _ in runs
        ]
    )
    learned = np.array([[float(trace.unseen.learned)] for _, trace in runs])
    for name, goals in {
        "of a tenth left out": general,
        "of the set's own": own * general / learned,
    }.items():
        print(f"goal {name}: off by {np.sqrt(np.mean((goals - true) ** 2)):.3f}")
    for scale in (1.25, 1.0):
        method = METHODS["unrolled_removal"].factory(LEARNER, scale=scale)
        prepare, forget = jax.jit(method.prepare), jax.jit(method.forget)
        gaps, sizes = [], []
        for gone, request, known in zip(sets, requests, hits, strict=True):
            found = []
            for key, (model, trace) in zip(keys, runs, strict=True):
                state = prepare(key, model, data, trace)
                moved, _ = forget(key, state, model, request)
                found.append(100 * np.asarray(right(moved))[gone].mean())
            gaps.append(np.mean(found) - np.mean(known))
            share = np.sqrt(1 / len(found) + 1 / len(known))
            sizes.append(gaps[-1] / max(np.std(known, ddof=1) * share, 1e-3))
        root = np.sqrt(np.mean(np.square(sizes)))
        print(f"length {scale}: gap {np.mean(gaps):+.2f} points, {root:.2f} deviations")
    late = jax.jit(forgotten_late)
    for seen in (0, 3, 8, 13):
        losses = [late(key, data, seen) for key in keys]
        print(f"left out from epoch {seen} on: loss {np.mean(losses):.4f}")


if __name__ == "__main__":
    main()
