"""Where the examples of a forgotten class go: by a lesson, by ascent, by retraining.

    python benchmarks/removal_classes.py [--data digits] [--limit 0] [--epochs 30]
        [--rate 0.1] [--nets 6] [--oracles 8] [--classes 0 1 2 …] [--teachers]

MLP 64-64, batches of 64. For each class the mean KL divergence of its examples' outputs
from those of nets trained without it (nats) and how many predictions agree with theirs
(percent ± standard deviation over nets): of these nets among themselves, of
``unrolled_removal``, and of the same parts as a chain, whose ascent drives the loss up.
With ``--teachers`` of what teaches it: the odds among other labels by the response as
far as chance, by a net trained anew for a tenth of the passes, and the mean of both.
"""

import argparse
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.attribution.trace import fit_traced
from unlearn_jax.data import DATASETS
from unlearn_jax.data.forget import class_set
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.methods.method import Method, chain
from unlearn_jax.models import MODELS
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, Batch, PRNGKey, Variables


def chained(learner: Learner) -> Method:
    """Response, descent, ascent, with the defaults of ``unrolled_removal``."""
    recipe = learner.recipe
    ascent = METHODS["natural_ascent"].factory(learner)
    descent = METHODS["finetune"].factory(
        learner,
        epochs=round(0.1 * recipe.epochs),
        learning_rate=recipe.learning_rate / 2,
        batch_size=recipe.batch_size,
        schedule="cosine",
    )
    response = METHODS["source_removal"].factory(learner)
    return chain(response, descent, ascent)


def apart(own: Any, others: Any) -> tuple[float, float]:
    """Mean KL from some log-probabilities to one's own; agreement in percent."""
    far = [np.mean(np.sum(np.exp(o) * (o - own), axis=1)) for o in others]
    same = [100 * np.mean(o.argmax(1) == own.argmax(1)) for o in others]
    return float(np.mean(far)), float(np.mean(same))


def odds(said: Any, label: int) -> Any:
    """Log-probabilities among the other labels; the label itself next to nothing."""
    others = np.where(np.arange(said.shape[1]) == label, -50.0, said)
    return others - np.log(np.sum(np.exp(others), axis=1, keepdims=True))


def mean_odds(said: Any) -> Any:
    """Of the mean of probabilities."""
    return np.log(np.mean(np.exp(said), axis=0))


def problem(asked: Any) -> tuple[Batch, Batch, Learner, Any, Any, Any]:
    """Of what was asked for: training and test set, learner, and what is compiled.

    These are log-probabilities, training, and training that leaves a trace.
    """
    dataset = DATASETS[asked.data].load(None)
    data, test = (
        jax.tree.map(jnp.asarray, part)
        for part in (dataset.splits.train, dataset.splits.test)
    )
    if asked.limit:
        data = jax.tree.map(lambda leaf: leaf[: asked.limit], data)
    model = MODELS["mlp"](data.inputs.shape[1:], dataset.classes, widths=(64, 64))
    learner = Learner(model, cross_entropy, 0.0, Recipe(asked.epochs, 64, asked.rate))

    @jax.jit
    def said(at: Variables, inputs: Array) -> Array:
        return jax.nn.log_softmax(model.apply(at, inputs))

    @jax.jit
    def learn(key: PRNGKey, data: Batch) -> Variables:
        return fit(key, learner, data)

    traced = jax.jit(lambda key, data: fit_traced(key, learner, data))
    return data, test, learner, said, learn, traced


def main() -> None:
    """Train, remove, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--classes", type=int, nargs="*", default=range(10))
    for name, number in {"limit": 0, "epochs": 30, "nets": 6, "oracles": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--teachers", action="store_true")
    asked = parser.parse_args()
    data, _, learner, said, learn, traced = problem(asked)
    runs = [traced(jax.random.key(900 + i), data) for i in range(asked.nets)]
    brief = replace(learner.recipe, epochs=max(1, round(0.1 * asked.epochs)))
    anew = jax.jit(
        lambda key, data: fit(key, learner._replace(recipe=brief), data),
    )
    methods = (
        {"response": METHODS["source_removal"].factory(learner, until="chance")}
        if asked.teachers
        else {
            "a lesson": METHODS["unrolled_removal"].factory(learner),
            "ascent": chained(learner),
        }
    )
    programs = {
        name: (jax.jit(made.prepare), jax.jit(made.forget))
        for name, made in methods.items()
    }
    columns = [f"by {name}" for name in methods]
    if asked.teachers:
        columns += ["by a new net", "by both"]
    header = ["class", "KL, oracles", *columns, "agreement, oracles", *columns]
    print(f"| {' | '.join(header)} |\n|---|{'---:|' * (len(header) - 1)}")
    for label in asked.classes:
        request = make_request(data, class_set(np.asarray(data.targets), label))
        there = np.asarray(request.forget.weights) > 0

        def outputs(
            at: Variables,
            request: Any = request,
            there: Any = there,
            label: int = label,
        ) -> Any:
            found = np.asarray(said(at, request.forget.inputs))[there]
            return odds(found, label) if asked.teachers else found

        keys = [jax.random.key(1900 + i) for i in range(asked.oracles)]
        truths = [outputs(learn(key, request.retain)) for key in keys]
        found = {
            "oracles": [
                apart(own, truths[:i] + truths[i + 1 :]) for i, own in enumerate(truths)
            ]
        }
        for name, (prepare, forget) in programs.items():
            found[name] = []
            for original, trace in runs:
                state = prepare(jax.random.key(0), original, data, trace)
                moved, _ = forget(jax.random.key(1), state, original, request)
                own = outputs(moved)
                found[name].append(apart(own, truths))
                if asked.teachers:
                    key = jax.random.key(2900 + len(found[name]))
                    new = outputs(anew(key, request.retain))
                    found.setdefault("new", []).append(apart(new, truths))
                    both = mean_odds([own, new])
                    found.setdefault("both", []).append(apart(both, truths))
        far = [f"{np.mean([kl for kl, _ in own]):.2f}" for own in found.values()]
        same = [np.array([share for _, share in own]) for own in found.values()]
        cells = [f"{own.mean():.1f} ± {own.std(ddof=1):.1f}" for own in same]
        print(f"| {label} | {' | '.join([*far, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
