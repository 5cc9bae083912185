"""Expose before defend: what clean examples alone tell of a backdoor, pass by pass."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.corrective.config import Config
from experiments.frame.findings import about, table
from experiments.frame.problem import seed_key
from experiments.frame.study import Results
from unlearn_jax.data.batch import Dataset, take
from unlearn_jax.data.corrupt import make_patch, with_patch
from unlearn_jax.methods.exposure import absorbed, clean_head, exposures
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.rows import Place, Row
from unlearn_jax.results.table import Table
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Variables

RATE, EPOCHS = 1e-3, 60
"""Of the ascent: the published rate, a hundredth of it, leaves a small net as it is."""
_HEAD = "last layer, solved on clean examples"


class Bench(NamedTuple):
    """Value: what the defender has, and what judges; no test example is in both.

    Attributes:
        clean: Trusted examples.
        rest: The other test examples.
        marked: Those of them that are of another class than the target, with the patch.
    """

    clean: Batch
    rest: Batch
    marked: Batch


def bench_of(config: Config, dataset: Dataset, seed: int) -> Bench:
    """The test set, cut in two.

    Raises:
        ValueError: nothing would be left to judge by.
    """
    train, test = dataset.splits
    count = len(test.targets)
    if config.clean >= count:
        raise ValueError(
            f"clean is {config.clean} and there are {count} test examples; expected "
            "fewer, since the others judge"
        )
    order = np.random.default_rng(seed).permutation(count)
    clean, rest = (
        take(test, np.sort(part))
        for part in (order[: config.clean], order[config.clean :])
    )
    others = take(rest, np.flatnonzero(np.asarray(rest.targets) != config.target))
    patch = make_patch(train, size=config.patch)
    return Bench(clean, rest, with_patch(others, patch))


def exposed(
    config: Config,
    learner: Learner,
    dataset: Dataset,
    suspect: Variables,
    at: dict[str, Place],
) -> Iterator[Row]:
    """Rows of every pass of the ascent, pass 0 the suspect; and of the closed form."""
    seed = int(at["seed"])
    given = bench_of(config, dataset, seed)
    apply = jax.jit(learner.model.apply)

    def judged(variables: Variables, step: Place) -> Iterator[Row]:
        outputs = np.asarray(apply(variables, given.rest.inputs))
        told = np.asarray(apply(variables, given.marked.inputs)).argmax(1)
        right = outputs.argmax(1) == np.asarray(given.rest.targets)
        where = {**at, "step": step}
        yield Row("exposed_accuracy", 100 * float(right.mean()), "%", where)
        attack = np.mean(told == config.target)
        yield Row("exposed_attack", 100 * float(attack), "%", where)
        most = absorbed(outputs)
        yield Row("absorbed_share", 100 * float(most.share), "%", where)
        hit = float(int(most.label) == config.target)
        yield Row("absorbed_by_target", hit, "1", where)

    key = seed_key("unlearn", seed)
    options: dict[str, Any] = {"learning_rate": RATE, "epochs": EPOCHS}
    yield from judged(suspect, "0")
    passes = exposures(key, learner, suspect, given.clean, **options)
    for number, variables in enumerate(passes, start=1):
        yield from judged(variables, str(number))
    yield from judged(clean_head(learner, suspect, given.clean, damping=0.1), _HEAD)


def exposure_table(config: Config, results: Results) -> Table:
    """The curve, pass by pass, mean over the seeds that are still at it."""
    rows = results.rows.where(kind="backdoor")
    header = (
        "pass",
        "accuracy, clean test (%)",
        "attack succeeds (%)",
        "in the largest class (%)",
        "which is the target (of 1)",
        "seeds",
    )
    metrics = (
        "exposed_accuracy",
        "exposed_attack",
        "absorbed_share",
        "absorbed_by_target",
    )
    lines = []
    for step in rows.places("step"):
        own = rows.where(step=step)
        cells = [mean_and_error(*own.mean(metric)) for metric in metrics]
        lines.append([step, *cells, len(own.places("seed"))])
    notes = (
        f"{config.clean} test examples are trusted, their loss ascends by Adam at "
        f"{RATE:g} until chance; all others judge, those with the patch less the "
        "target's own. Attack: share that the patch sends to its target.",
        "The last row: the suspect's last layer by ridge regression on the trusted "
        "examples and its own outputs, damping 0.1; nothing was unlearned.",
    )
    caption = f"Expose before defend. {about(results.run)}"
    return table("exposure", caption, header, lines, notes)
