"""Take the rows once, and lead all forms through the requests."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.exactness.config import PIXELS, Config
from experiments.exactness.follow import Course, segment
from experiments.exactness.forms import Features
from experiments.exactness.requests import Request, draw_requests
from experiments.frame.backbone import kept_features
from experiments.frame.bench import Bench
from experiments.frame.problem import build_model, load
from unlearn_jax.data.batch import Dataset
from unlearn_jax.models.random_features import directions, expand, random_kernel
from unlearn_jax.results.rows import Row
from unlearn_jax.solvers.ridge_checks import check_start


class Setting(NamedTuple):
    """Description: data and requests, before anything is trained."""

    config: Config
    dataset: Dataset
    start: np.ndarray
    requests: list[Request]


def build(config: Config) -> Setting:
    """Load, check, draw the requests; what is refused is refused here.

    Raises:
        ValueError: data that are absent, numbers out of range.
    """
    for l2 in (*config.l2s, *config.single_l2s):
        check_start(config.width, 0, l2, jnp.float64)
    random_kernel(jax.random.key(0), 1, config.width)  # refuses the width
    if config.checks > config.requests:
        raise ValueError(
            f"checks is {config.checks}; expected no more checks than the "
            f"{config.requests} requests"
        )
    dataset = load(config.data)
    start, requests = draw_requests(
        np.asarray(dataset.splits.train.targets),
        requests=config.requests,
        most=config.most,
        seed=config.seed,
    )
    return Setting(config, dataset, start, requests)


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """The sizes of what is asked; then all forms, from one check to the next."""
    config, requests = setting.config, setting.requests
    own, others = features(bench, setting)
    kernel = random_kernel(jax.random.key(config.seed + 1), own.shape[1], config.width)
    rows, test = (expanded(part, kernel) for part in (own, others[: config.tested]))
    last, checks = config.requests, config.checks
    given = Features(
        rows,
        np.asarray(setting.dataset.splits.train.targets),
        setting.dataset.classes,
        test.astype(np.float64),
        config.l2s,
        config.single_l2s,
        config.watch,
        tuple(round(last * (i + 1) / checks) for i in range(checks)),
        max(last - config.kept_last, 0),
        max(last - config.single_last, 0),
    )
    sizes = [len(request.forget) + len(request.learn) for request in requests]
    yield Row("features", float(own.shape[1]))
    yield Row("training_rows", float(len(setting.start)))
    yield Row("rows_at_start", float(setting.start.sum()))
    yield Row("smallest_request", float(min(sizes)))
    yield Row("largest_request", float(max(sizes)))
    course = Course(given, setting.start, requests)
    ends = [0, *given.checks]
    for first, end in zip([0, *ends], ends, strict=False):
        follow = functools.partial(segment, course, first, end)
        yield from bench.rows(f"requests to {end}", follow)


def features(bench: Bench, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Frozen features of training and test examples; pixels are their own."""
    config, splits = setting.config, setting.dataset.splits
    if config.model.name == PIXELS:
        flat = [np.asarray(part.inputs) for part in splits]
        return flat[0].reshape(len(flat[0]), -1), flat[1].reshape(len(flat[1]), -1)
    model = build_model(config.model, setting.dataset)
    return kept_features(
        bench,
        config.model,
        model,
        config.backbone,
        splits.train,
        splits,
        seed=config.seed,
    )


def expanded(given: np.ndarray, kernel: Any) -> np.ndarray:
    """Random features in float32, which holds their 20 digits."""
    unit, step = directions(given), 2048
    parts = [
        np.asarray(expand(unit[first : first + step], kernel)).astype(np.float32)
        for first in range(0, len(unit), step)
    ]
    return np.concatenate(parts)
