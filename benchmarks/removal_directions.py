"""What five directions say removal does to margins, against nets trained without.

    python benchmarks/removal_directions.py [--data-dir FOLDER] [--oracles 16]

For five requests (digits: a random tenth, a class; the first 5,000 images of
Fashion-MNIST: a random tenth, a hundred, a class) prints a Markdown table: the mean
predicted change of the margin of forgotten examples, to first order along the
direction, and its correlation over these examples with the true change, both means over
nets. True is: mean over oracles minus mean over originals. Behind ± stand standard
errors, from 1,000 samples with replacement of nets, oracles and examples together.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import as_trained
from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.attribution.trace import Trace, fit_traced, unrolled_response
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.operator import damped
from unlearn_jax.data import DATASETS
from unlearn_jax.data.batch import take
from unlearn_jax.data.forget import class_set, random_set
from unlearn_jax.methods import METHODS, Request, make_request
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.removal import removal_slope
from unlearn_jax.models import MODELS
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.train.trajectory import training_time
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables

SAMPLES = 1000
STEPS = {"tol": 1e-3, "max_steps": 200}


class Problem(NamedTuple):
    """A data set, how it is learned, and what is to be forgotten."""

    title: str
    learner: Learner
    train: Batch
    requests: dict[str, np.ndarray]


def problems(folder: Path | None) -> list[Problem]:
    """Digits, and Fashion-MNIST where it is found."""
    found = []
    for name, title, limit, recipe in (
        ("digits", "Digits", None, Recipe(30, 64, 0.1)),
        ("fashion_mnist", "Fashion-MNIST", 5000, Recipe(20, 64, 0.05)),
    ):
        if DATASETS[name].missing(folder):
            print(f"{title} is not in {folder}: left out")
            continue
        train, _ = DATASETS[name].load(folder).splits
        train = take(train, range(limit or len(train.targets)))
        shape = tuple(train.inputs.shape[1:])
        model = MODELS["mlp"](shape, 10, widths=(64, 64))
        count = len(train.targets)
        requests = {
            "random:0.1": random_set(0, count, 0.1),
            "class:3": class_set(train.targets, 3),
        }
        if limit:
            requests["random:100"] = random_set(0, count, 100)
        learner = Learner(model, cross_entropy, 0.0, recipe)
        data = jax.tree.map(jnp.asarray, train)
        found.append(Problem(title, learner, data, requests))
    return found


def directions(learner: Learner) -> dict[str, Callable[..., Params]]:
    """``(key, original, trace, train, request) -> Params`` by name."""
    known = as_trained(learner)

    def towards_what_stays(
        key: PRNGKey, original: Variables, trace: Trace, train: Batch, asked: Request
    ) -> Params:
        objective = bind(learner.model, original.stats, learner.loss)
        slope = risk_gradient(objective, original.params, asked.retain)
        matrix = damped(gauss_newton(objective, original.params, asked.retain), 1e-3)
        return tree.scale(-1.0, conjugate_gradient(matrix, slope, **STEPS).value)

    def curvature_of_all(
        key: PRNGKey, original: Variables, trace: Trace, train: Batch, asked: Request
    ) -> Params:
        objective = bind(known.model, original.stats, known.loss, known.l2)
        slope = removal_slope(objective, original.params, asked)
        time = training_time(known.recipe, train.weights)
        matrix = damped(gauss_newton(objective, original.params, train), 1 / time)
        return conjugate_gradient(matrix, slope, **STEPS).value

    def of_method(name: str, **options: Any) -> Callable[..., Params]:
        method = METHODS[name].factory(learner, **options)

        def direction(
            key: PRNGKey,
            original: Variables,
            trace: Trace,
            train: Batch,
            asked: Request,
        ) -> Params:
            state = method.prepare(key, original, train)
            moved, _ = method.forget(key, state, original, asked)
            return tree.subtract(moved.params, original.params)

        return direction

    def unrolled(
        key: PRNGKey, original: Variables, trace: Trace, train: Batch, asked: Request
    ) -> Params:
        kept = jnp.sum(asked.retain.weights)
        return unrolled_response(learner, trace, asked.forget, kept)[0]

    return {
        "slope of what stays without decay, its GGN + 0.001": towards_what_stays,
        "centred, GGN of all, 1/T": curvature_of_all,
        "centred, GGN of what stays, 1/T (newton_removal)": of_method(
            "newton_removal", **STEPS
        ),
        "centred, EK-FAC of what stays, 1/T": of_method(
            "influence_removal", inverse="ekfac"
        ),
        "unrolled, 3 segments of 2 checkpoints (source_removal)": unrolled,
    }


def margins_of(learner: Learner, models: Variables, data: Batch) -> Array:
    """(m, n)."""

    def one(variables: Variables) -> Array:
        return margin(learner.model.apply(variables, data.inputs), data.targets)

    return jax.lax.map(one, models)


def compared(
    predicted: Array, originals: Array, oracles: Array
) -> tuple[float, float, float, float, float]:
    """Mean predicted, its error, mean true, correlation, its error."""

    def figures(p: Array, a: Array, o: Array) -> tuple[Any, Any, Any]:
        found, true = p.mean(axis=0), o.mean(axis=0) - a.mean(axis=0)
        return found.mean(), true.mean(), np.corrcoef(found, true)[0, 1]

    random = np.random.default_rng(0)
    drawn = []
    for _ in range(SAMPLES):
        nets = random.integers(len(predicted), size=len(predicted))
        retrained = random.integers(len(oracles), size=len(oracles))
        rows = random.integers(predicted.shape[1], size=predicted.shape[1])
        own = predicted[nets][:, rows], originals[nets][:, rows]
        drawn.append(figures(*own, oracles[retrained][:, rows]))
    error = np.std(drawn, axis=0, ddof=1)
    mean, true, correlation = figures(predicted, originals, oracles)
    return mean, error[0], true, correlation, error[2]


def rows_of(problem: Problem, nets: int, oracles: int) -> None:
    """Print the rows of one problem."""
    learner, train = problem.learner, problem.train
    keys = jax.random.split(jax.random.key(0), nets)
    others = jax.random.split(jax.random.key(1), oracles)

    @jax.jit
    def learn(key: PRNGKey, train: Batch) -> tuple[Variables, Trace]:
        options = {"labels": "exact", "examples": None, "held_out": train}
        return fit_traced(key, learner, train, **options)

    learned = tree.stack([learn(key, train) for key in keys])
    originals, traces = learned
    retrain = jax.jit(lambda key, data: fit(key, learner, data))
    margins = jax.jit(lambda models, data: margins_of(learner, models, data))
    for name, gone in problem.requests.items():
        asked = make_request(train, gone)
        forgotten = take(train, gone)
        without = tree.stack([retrain(key, asked.retain) for key in others])
        before, after = (
            np.asarray(margins(models, forgotten)) for models in (originals, without)
        )
        for title, direction in directions(learner).items():

            def along(
                key: PRNGKey,
                original: Variables,
                trace: Trace,
                train: Batch,
                asked: Request,
                forgotten: Batch,
                direction: Callable[..., Params] = direction,
            ) -> Array:
                step = direction(key, original, trace, train, asked)

                def own(params: Params) -> Array:
                    outputs = learner.model.apply(
                        original._replace(params=params), forgotten.inputs
                    )
                    return margin(outputs, forgotten.targets)

                return jax.jvp(own, (original.params,), (step,))[1]

            program = jax.jit(along)
            predicted = np.stack(
                [
                    program(
                        keys[i],
                        *tree.member((originals, traces), i),
                        train,
                        asked,
                        forgotten,
                    )
                    for i in range(nets)
                ]
            )
            mean, error, true, correlation, spread = compared(predicted, before, after)
            print(
                f"| {problem.title} {name} | {true:+.2f} | {title} "
                f"| {mean:+.2f} ± {error:.2f} | {correlation:+.2f} ± {spread:.2f} |",
                flush=True,
            )


def main() -> None:
    """Train, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--nets", type=int, default=5)
    parser.add_argument("--oracles", type=int, default=16)
    asked = parser.parse_args()
    print("| request | true | direction | predicted | correlation |")
    print("|---|---:|---|---:|---:|")
    for problem in problems(asked.data_dir):
        rows_of(problem, asked.nets, asked.oracles)


if __name__ == "__main__":
    main()
