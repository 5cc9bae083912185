"""Train the backbone once, and lead every head through the stream."""

import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.continual.config import Config
from experiments.continual.follow import Judges, follow, request_name
from experiments.continual.heads import (
    Contestant,
    Frozen,
    acu,
    naive,
    scratch,
)
from experiments.continual.neighbours import check_options, neighbours
from experiments.continual.sgd import head_methods, sgd_heads
from experiments.continual.stream import Event, draw_stream, tasks_of
from experiments.frame.backbone import kept_features
from experiments.frame.bench import Bench, reason_of, rows_of
from experiments.frame.problem import build_model, load
from unlearn_jax.data.batch import Dataset, take
from unlearn_jax.models import Model
from unlearn_jax.models.random_features import random_kernel
from unlearn_jax.results.rows import Row
from unlearn_jax.solvers.ridge_checks import check_start
from unlearn_jax.storage.piece import Piece


class Setting(NamedTuple):
    """Description: data and stream, before anything is trained."""

    config: Config
    dataset: Dataset
    model: Model
    events: list[Event]


def build(config: Config) -> Setting:
    """Load, check, draw the stream; what is refused is refused here.

    Raises:
        ValueError: data that are absent or have fewer than four classes, numbers out
            of range.
    """
    check_start(config.width, 0, config.l2, jnp.float64)
    random_kernel(jax.random.key(0), 1, config.width)  # refuses the width
    dataset = load(config.data)
    head_methods(1, dataset.classes, config.head, config.options)  # refuses options
    check_options(config.head, config.options)
    tasks = tasks_of(dataset.classes, config.phases)
    events = draw_stream(
        np.asarray(dataset.splits.train.targets),
        tasks,
        rounds=config.rounds,
        rows=config.rows,
        users=config.users,
        seed=config.seed,
    )
    model = build_model(config.model, dataset._replace(classes=len(tasks[0])))
    return Setting(config, dataset, model, events)


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """The stream itself, then every head; those that others refer to come first."""
    config, events = setting.config, setting.events
    train, test = setting.dataset.splits
    seen = take(train, events[0].learn)._replace(
        targets=events[0].learn_labels.astype(np.int32)
    )
    own, others = kept_features(
        bench,
        config.model,
        setting.model,
        config.backbone,
        seen,
        setting.dataset.splits,
        seed=config.seed,
    )
    key = jax.random.key(config.seed + 1)
    frozen = Frozen(own, setting.dataset.classes, key, config.width, config.l2)
    judges = Judges(
        frozen, others, np.asarray(test.targets), config.judged, config.history
    )
    yield Row("classes", float(setting.dataset.classes))
    yield Row("training_rows", float(len(own)))
    yield Row("features", float(own.shape[1]))
    for position, event in enumerate(events):
        at = {"request": request_name(position, event), "kind": event.kind}
        yield Row("asked_rows", float(max(len(event.forget), len(event.learn))), at=at)
        yield Row("rows_within", float(np.sum(event.labels >= 0)), at=at)
    found: dict[str, Piece] = {}
    for contestant in contestants(config, frozen):
        name = contestant.name
        lead = functools.partial(_lead, bench, judges, events, contestant, found)
        try:
            found[name] = bench.keep(name, lead)
        except Exception as error:
            yield Row("finished", None, at={"method": name}, failure=reason_of(error))
            continue
        yield from rows_of(found[name])


def contestants(config: Config, frozen: Frozen) -> list[Contestant]:
    """Every head, those that others refer to first."""
    return [
        scratch(frozen),
        acu(frozen, "gram"),
        acu(frozen, "inverse"),
        naive(frozen),
        *sgd_heads(frozen, config.head, config.options).values(),
        *neighbours(frozen, config.head, config.options),
    ]


def _lead(
    bench: Bench,
    judges: Judges,
    events: list[Event],
    contestant: Contestant,
    found: Mapping[str, Piece],
) -> Piece:
    """One head through the stream, held to its oracle where it is not its own."""
    oracle = None
    if contestant.name != contestant.reference:
        if contestant.reference not in found:
            raise RuntimeError(f"its oracle, {contestant.reference!r}, failed")
        oracle = found[contestant.reference].arrays
    with bench.progress(contestant.name, len(events)) as advance:
        return follow(judges, events, contestant, oracle, advance)
