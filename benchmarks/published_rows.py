"""Rows that others published and that can be checked here, on a small CNN of CIFAR-10.

    UNLEARN_DATA=FOLDER python benchmarks/published_rows.py [classes] [one]

Two tables: a model card's SSD with its default threshold, each class in its turn, whose
accuracy on the other classes collapses for some; and one class by LAF, Bad Teacher, its
rivals and UNSIR, beside a model trained without it, with the score ZRF that Bad Teacher
is judged by. Not a copy of those experiments: a CNN of 10,000 images stands for
ResNet-18 of 50,000, so that directions can be compared and figures cannot.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data import DATASETS
from unlearn_jax.data.batch import take
from unlearn_jax.data.forget import class_set
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.methods.method import Request
from unlearn_jax.models import MODELS
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch, Variables

CLASS = 0
"""Airplane, which LAF's notebook forgets."""
ROWS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("bad_teacher", "bad_teacher", {}),
    ("bad_teacher, tenfold rate", "bad_teacher", {"learning_rate": 1e-3}),
    (
        "bad_teacher, tenfold rate, 5 passes",
        "bad_teacher",
        {"learning_rate": 1e-3, "epochs": 5},
    ),
    ("laf, tau 20", "laf", {"tau": 20.0}),
    (
        "laf, tenfold rates",
        "laf",
        {"tau": 20.0, "extract_rate": 5e-4, "align_rate": 1e-3},
    ),
    ("amnesiac", "amnesiac", {}),
    ("amnesiac, tenfold rate", "amnesiac", {"learning_rate": 1e-3}),
    ("unsir", "unsir", {}),
    ("unsir, tenfold rate", "unsir", {"learning_rate": 1e-3}),
)
"""What the second table tries: settings as published, and rates for so few steps."""


def main(tables: list[str], images: int, epochs: int, seed: int) -> None:
    """Train, and print the tables."""
    dataset = DATASETS["cifar10"].load(None)
    train, test = (
        jax.tree.map(jnp.asarray, take(part, range(min(images, len(part.targets)))))
        for part in dataset.splits
    )
    learner = Learner(
        MODELS["cnn"](train.inputs.shape[1:], 10),
        cross_entropy,
        0.0,
        Recipe(epochs=epochs, batch_size=128, learning_rate=0.05),
    )
    keys = jax.random.split(jax.random.key(seed), 4)
    learnt = jax.jit(lambda key, data: fit(key, learner, data))
    original = learnt(keys[0], train)
    if "classes" in tables:
        by_class(learner, original, train, test, keys[1])
    if "one" not in tables:
        return
    oracle = learnt(keys[2], class_request(train, CLASS).retain)
    one_class(learner, {"original": original, "oracle": oracle}, train, test, keys[3])


def by_class(
    learner: Learner, original: Variables, train: Batch, test: Batch, key: jax.Array
) -> None:
    """SSD at α = 10 and λ = 1 for each class, by both importances."""
    guess = guesser(learner)
    print("| class | original | ssd: forget | others | ssd_batch: forget | others |")
    print("|---:|---:|---:|---:|---:|---:|")
    programs = {
        name: forgetter(name, learner, original, train, {"alpha": 10.0}, key)
        for name in ("ssd", "ssd_batch")
    }
    for label in range(10):
        request = class_request(train, label)
        own = np.asarray(test.targets) == label
        cells = [right(guess(original, test.inputs), test, ~own)]
        for program in programs.values():
            said = guess(program(request)[0], test.inputs)
            cells += [right(said, test, own), right(said, test, ~own)]
        print(
            f"| {label} | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True
        )


def one_class(
    learner: Learner,
    models: dict[str, Variables],
    train: Batch,
    test: Batch,
    key: jax.Array,
) -> None:
    """The five accuracies of LAF's notebook, and ZRF with its divergence in nats."""
    guess = guesser(learner)
    outputs = jax.jit(learner.model.apply)
    random = learner.model.init(jax.random.fold_in(key, 1))
    request = class_request(train, CLASS)
    own, seen = np.asarray(test.targets) == CLASS, np.asarray(train.targets) == CLASS
    print(
        "| model | retain, train | forget, train | test | retain, test | forget, test "
        "| ZRF, as released | JS to a random net (nats) | CPU s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")

    def row(name: str, model: Variables, seconds: float) -> None:
        known, new = guess(model, train.inputs), guess(model, test.inputs)
        shares = [
            right(known, train, ~seen),
            right(known, train, seen),
            right(new, test, own | ~own),
            right(new, test, ~own),
            right(new, test, own),
        ]
        lost = train.inputs[np.flatnonzero(seen)]
        apart = divergence(outputs(model, lost), outputs(random, lost))
        print(
            f"| {name} | {' | '.join(f'{share:.1f}' for share in shares)} | "
            f"{1 - apart / 10:.4f} | {apart:.3f} | {seconds:.2f} |",
            flush=True,
        )

    for name, model in models.items():
        row(name, model, float("nan"))
    for name, method, options in ROWS:
        program = forgetter(method, learner, models["original"], train, options, key)
        row(name, *program(request))


def forgetter(
    name: str,
    learner: Learner,
    original: Variables,
    train: Batch,
    options: Mapping[str, Any],
    key: jax.Array,
) -> Callable[[Any], tuple[Variables, float]]:
    """A request to the model without its examples, and CPU seconds, once compiled."""
    method = METHODS[name].factory(learner, **options)
    state = jax.jit(method.prepare)(key, original, train)
    program = jax.jit(lambda state, at, asked: method.forget(key, state, at, asked)[0])
    compiled = program.lower(state, original, class_request(train, CLASS)).compile()

    def run(request: Any) -> tuple[Variables, float]:
        begin = time.process_time()
        model = jax.block_until_ready(compiled(state, original, request))
        return model, time.process_time() - begin

    return run


def class_request(train: Batch, label: int) -> Request:
    """To forget a class, in arrays of one size for all, so that one program serves."""
    targets = np.asarray(train.targets)
    rows, size = class_set(targets, label), int(np.bincount(targets).max())
    lost = take(train, np.resize(rows, size))
    there = jnp.asarray(np.arange(size) < len(rows), train.weights.dtype)
    return make_request(train, rows)._replace(forget=lost._replace(weights=there))


def guesser(learner: Learner) -> Callable[..., np.ndarray]:
    """Labels that a model predicts."""
    program = jax.jit(
        lambda model, inputs: learner.model.apply(model, inputs).argmax(1)
    )
    return lambda model, inputs: np.asarray(program(model, inputs))


def right(told: np.ndarray, data: Batch, chosen: np.ndarray) -> float:
    """Right answers among those chosen (%)."""
    return 100 * float((told == np.asarray(data.targets))[chosen].mean())


def divergence(a: jax.Array, b: jax.Array) -> float:
    """Mean Jensen-Shannon divergence of two sets of logits [nats].

    Released code of Bad Teacher and SSD averages over classes too, and calls one less
    this ZRF: with ten classes it cannot fall below 1 − ln 2 / 10.
    """
    first, second = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    middle = jnp.logaddexp(first, second) - jnp.log(2.0)
    halves = (jnp.sum(jnp.exp(p) * (p - middle), axis=1) for p in (first, second))
    return float(jnp.mean(sum(halves)) / 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    both = ["classes", "one"]
    parser.add_argument("tables", nargs="*", choices=[*both, []], default=[])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    main(asked.tables or both, asked.images, asked.epochs, asked.seed)
