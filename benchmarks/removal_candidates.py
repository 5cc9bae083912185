"""Candidates for second-order removal against retrained nets, with their price.

    python benchmarks/removal_candidates.py [--data fashion_mnist] [--limit 5000]
        [--epochs 20] [--rate 0.05] [--nets 5] [--oracles 16] [--seed 1300]

MLP 64-64, batches of 64; a random tenth and class 3. Gaps from the oracles' mean in
points on retain, forget and test set; KL divergence of the forget set's outputs from
the oracles', and agreement of its predictions with theirs, both against that of oracles
with one another; CPU time of one request and of prepare, without the trace, in units of
one retraining.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from removal_classes import apart, problem
from timing import turns

from unlearn_jax import tree
from unlearn_jax.attribution.trace import Trace, unrolled_response
from unlearn_jax.curvature.kronecker_blocks import block_means
from unlearn_jax.curvature.kronecker_inverse import kronecker_inverse
from unlearn_jax.data.forget import class_set, random_set
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.methods.method import Method, Request, chain, stateless
from unlearn_jax.methods.natural_ascent import loss_and_slope
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, PRNGKey, Variables

DAMPING = 0.1
"""Of a block's mean eigenvalue, as kronfluence damps."""


def traced(forget: Callable[..., Variables]) -> Method:
    """A method whose state is the trace, and which leaves it as it is."""

    def prepare(key: PRNGKey, original: Variables, train: Batch, trace: Trace) -> Trace:
        del key, original, train
        return trace

    def step(key: PRNGKey, state: Trace, at: Variables, request: Request) -> Any:
        return forget(key, state, at, request), state

    return Method(prepare, step, reads_trace=True)


def damped_by_blocks(learner: Learner) -> Method:
    """One EK-FAC step, each layer damped by a tenth of its own mean eigenvalue."""

    def forget(_: Any, trace: Trace, at: Variables, request: Request) -> Variables:
        objective = bind(learner.model, at.stats, learner.loss)
        _, slope = loss_and_slope(objective, at.params, request.forget, batch_size=256)
        gone, kept = (jnp.sum(part.weights) for part in request)
        dampings = tuple(DAMPING * mean for mean in block_means(trace.last))
        inverse = kronecker_inverse(trace.last, damping=dampings)
        step = inverse(tree.subtract(slope, trace.slope))
        return at._replace(params=tree.axpy(gone / (gone + kept), step, at.params))

    return traced(forget)


def rewound(learner: Learner, left: int) -> Method:
    """Back to a checkpoint, the response up to there, and the rest of training.

    Args:
        learner: Of three segments of as many epochs.
        left: Segments of the three that are trained again.
    """
    epochs = round(left / 3 * learner.recipe.epochs)
    # The rest of a cosine is near enough to a cosine of its own from where it stands.
    share = 0.5 * (1 + np.cos(np.pi * (1 - left / 3)))
    peak = learner.recipe.learning_rate * float(share)
    rest = replace(learner.recipe, epochs=epochs, learning_rate=peak)

    def forget(key: Any, trace: Trace, at: Variables, request: Request) -> Variables:
        del at
        early = jax.tree.map(lambda leaf: leaf[: 3 - left], trace.curvatures)
        known = trace._replace(
            points=jax.tree.map(lambda leaf: leaf[: 3 - left], trace.points),
            shares=trace.shares[: 3 - left],
            rates=trace.rates[: 3 - left],
            slopes=jax.tree.map(lambda leaf: leaf[: 3 - left], trace.slopes),
            curvatures=early,
        )
        kept = jnp.sum(request.retain.weights)
        change, _ = unrolled_response(learner, known, request.forget, kept)
        back = jax.tree.map(lambda leaf: leaf[2 - left, -1], trace.points)
        start = back._replace(params=tree.add(back.params, change))
        return fit(key, learner._replace(recipe=rest), request.retain, start=start)

    return traced(forget)


def brief(learner: Learner, share: float) -> Method:
    """The control: training anew, for that share of the passes."""
    epochs = max(1, round(share * learner.recipe.epochs))
    short = learner._replace(recipe=replace(learner.recipe, epochs=epochs))

    def forget(key: PRNGKey, at: Variables, request: Request) -> Variables:
        del at
        return fit(key, short, request.retain)

    return stateless(forget)


def candidates(learner: Learner) -> dict[str, Method]:
    """By the words of the table."""

    def of(name: str, **options: Any) -> Method:
        return METHODS[name].factory(learner, **options)

    recipe = learner.recipe
    descent = of(
        "finetune",
        epochs=max(1, round(0.1 * recipe.epochs)),
        learning_rate=recipe.learning_rate / 2,
        batch_size=recipe.batch_size,
        schedule="cosine",
    )
    ascent = of("natural_ascent")
    newton = {"tol": 1e-6, "max_steps": 20}
    return {
        "original": of("identity"),
        "**unrolled_removal**": of("unrolled_removal"),
        "response, descent": chain(of("source_removal"), descent),
        "ascent, descent": chain(ascent, descent),
        "retain GGN, 20 steps of CG; descent": chain(
            of("newton_removal", **newton), descent
        ),
        "retain_newton (NPO in a trust region); descent": chain(
            of("retain_newton"), descent
        ),
        "proximal Newton, 4 by 10 steps of CG": of(
            "newton_removal", iterations=4, tol=1e-6, max_steps=10
        ),
        "EK-FAC damped by layers; descent": chain(damped_by_blocks(learner), descent),
        "back to a third, response, rest": rewound(learner, 2),
        "back to two thirds, response, rest": rewound(learner, 1),
        "SSD of alpha 3.33, descent, ascent": chain(
            of("ssd", alpha=3.33), descent, ascent
        ),
        "descent alone": descent,
        "a fifth of a training, anew": brief(learner, 0.2),
    }


def main() -> None:
    """Train, remove, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--rate", type=float, default=0.05)
    numbers = {"limit": 5000, "epochs": 20, "nets": 5, "oracles": 16, "seed": 1300}
    for name, number in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    asked = parser.parse_args()
    data, test, learner, said, learn, trace = problem(asked)
    runs = [trace(jax.random.key(asked.seed + i), data) for i in range(asked.nets)]
    methods = candidates(learner)
    prepares = {name: jax.jit(one.prepare) for name, one in methods.items()}
    forgets = {name: jax.jit(one.forget) for name, one in methods.items()}
    labels = np.asarray(data.targets)
    sets = {
        "random:0.1": random_set(jax.random.key(asked.seed), len(labels), 0.1),
        "class:3": class_set(labels, 3),
    }
    for title, indices in sets.items():
        request = make_request(data, indices)
        there = np.asarray(request.retain.weights) > 0

        def judged(
            at: Variables, indices: Any = indices, there: Any = there
        ) -> tuple[Any, Any]:
            known, new = (np.asarray(said(at, part.inputs)) for part in (data, test))
            right = known.argmax(1) == labels
            rest = new.argmax(1) == np.asarray(test.targets)
            shares = right[there], right[np.asarray(indices)], rest
            return known[np.asarray(indices)], [100 * np.mean(part) for part in shares]

        oracles = [
            judged(learn(jax.random.key(asked.seed + 1000 + i), request.retain))
            for i in range(asked.oracles)
        ]
        told = [outputs for outputs, _ in oracles]
        mean = np.mean([shares for _, shares in oracles], axis=0)
        floor = np.mean(
            [apart(own, told[:i] + told[i + 1 :]) for i, own in enumerate(told)], axis=0
        )
        header = "method", *(f"gap {part}" for part in ("retain", "forget", "test"))
        header = *header, "KL ÷ oracles", "agreement less oracles'"
        print(
            f"\n{title}: oracles' KL {floor[0]:.3f}, agreement {floor[1]:.1f} %\n\n"
            f"| {' | '.join(header)} | request | prepare |\n|---|{'---:|' * 7}"
        )
        for name, method in methods.items():
            given = [
                (jax.random.key(0), original, data)
                + ((left,) if method.reads_trace else ())
                for original, left in runs
            ]
            asks = [
                (jax.random.key(i), prepares[name](*own), own[1], request)
                for i, own in enumerate(given)
            ]
            found = []
            for ask in asks:
                outputs, shares = judged(forgets[name](*ask)[0])
                found.append([*(shares - mean), *apart(outputs, told)])
            *gaps, far, same = np.mean(found, axis=0)
            calls = {
                "training": (learn, (jax.random.key(0), request.retain)),
                "request": (forgets[name], asks[0]),
                "prepare": (prepares[name], given[0]),
            }
            spent = turns(
                {
                    what: lambda call=call: jax.block_until_ready(call[0](*call[1]))
                    for what, call in calls.items()
                },
                5,
            )
            prices = [
                f"{spent[what].cpu / spent['training'].cpu:.2f}"
                for what in ("request", "prepare")
            ]
            cells = [*(f"{gap:+.2f}" for gap in gaps), f"{far / floor[0]:.2f}"]
            cells += [f"{same - floor[1]:+.1f}", *prices]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
