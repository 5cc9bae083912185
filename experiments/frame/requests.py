"""The language of forget sets: what stands on a command line, for every study."""

import ast
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from unlearn_jax.attribution.gradient_clusters import embeddings, gradient_features
from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.forget import check_indices, class_set, draw, partial_set
from unlearn_jax.data.hard_sets import clustered_set, draw_hard
from unlearn_jax.data.indices import UNREADABLE
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables

Features = Callable[[str], np.ndarray]
"""Features of all training examples under an original, by the kind that asks."""


class Asked(NamedTuple):
    """Value: one forget set in words.

    Attributes:
        text: As on the command line, "clustered:6:100".
        kind: A name in ``KINDS``.
        label: Class or finer class; None where the kind has none, or several.
        size: A count, or a share of the examples that may be chosen.
        file: Of indices or scores.
        labels: Several finer classes.
    """

    text: str
    kind: str
    label: int | None = None
    size: int | float = 0
    file: Path | None = None
    labels: tuple[int, ...] = ()


class Kind(NamedTuple):
    """Description: one kind of forget set.

    Attributes:
        forms: How it is written; each an example of its own.
        about: What it is.
        read: The words behind the first colon to fields of ``Asked``.
        draw: ``(asked, dataset, seed, features) -> indices``.
        trained: Whether it asks for features of a trained original.
    """

    forms: tuple[str, ...]
    about: str
    read: Callable[[str], dict[str, Any]]
    draw: Callable[[Asked, Dataset, int, Features | None], np.ndarray]
    trained: bool = False


def parse_request(text: str) -> Asked:
    """The forget set that a text stands for.

    Raises:
        ValueError: no such kind, or a value of the wrong sort.
    """
    kind, colon, value = text.partition(":")
    if kind in KINDS and colon and value:
        try:
            return Asked(text, kind, **KINDS[kind].read(value))
        except UNREADABLE:
            pass
    forms = ", ".join(form for known in KINDS.values() for form in known.forms)
    raise ValueError(f"cannot read the request {text!r}; write one of {forms}")


def check_request(text: str, dataset: Dataset) -> Asked:
    """Read a request and refuse, before anything is trained, what cannot be drawn.

    Raises:
        FileNotFoundError: a file that it names is not there.
        ValueError: it cannot be read, or the data set has no such examples.
    """
    asked = parse_request(text)
    if KINDS[asked.kind].trained:
        # Any features will do to see whether label and size fit.
        count = len(dataset.splits.train.targets)
        stand_in = np.arange(2 * count, dtype=np.float64).reshape(count, 2)
        draw_request(asked, dataset, features=lambda _: stand_in)
    else:
        draw_request(asked, dataset)
    return asked


def draw_request(
    asked: Asked, dataset: Dataset, *, seed: int = 0, features: Features | None = None
) -> np.ndarray:
    """Sorted indices into the training examples.

    Args:
        asked: From :func:`parse_request`.
        dataset: Whose training examples.
        seed: Of kinds that draw.
        features: Of a trained original; asked for by kinds that are ``trained``.

    Raises:
        ValueError: the data set has no such examples.
    """
    return KINDS[asked.kind].draw(asked, dataset, seed, features)


def trained_features(
    learner: Learner, train: Batch, original: Variables, kind: str, *, seed: int = 0
) -> np.ndarray:
    """Features of all training examples, for kinds that are ``trained``.

    Args:
        learner: Whose model and loss.
        train: Training examples, on the device.
        original: The model that is asked.
        kind: "clustered" for embeddings, "gradients" for sketches of gradients.
        seed: Draws the sketch.
    """
    if kind == "clustered":
        return np.asarray(embeddings(learner.model, original, train))
    objective = bind(learner.model, original.stats, learner.loss)

    def features(key: PRNGKey, params: Params, data: Batch) -> Array:
        return gradient_features(key, objective, params, data)

    return np.asarray(jax.jit(features)(jax.random.key(seed), original.params, train))


def request_files(texts: tuple[str, ...]) -> list[Path]:
    """The files that requests name."""
    files = (parse_request(text).file for text in texts)
    return [file for file in files if file is not None]


def _read_size(value: str) -> dict[str, Any]:
    return {"size": _size(value)}


def _read_label(value: str) -> dict[str, Any]:
    return {"label": int(value)}


def _read_labels(value: str) -> dict[str, Any]:
    if "," not in value:
        return _read_label(value)
    labels = tuple(int(word) for word in value.split(","))
    if len(set(labels)) < len(labels):
        raise ValueError(f"{value!r} names one twice")
    return {"labels": labels}


def _read_file(value: str) -> dict[str, Any]:
    return {"file": Path(value)}


def _read_cluster(value: str) -> dict[str, Any]:
    label, colon, size = value.rpartition(":")
    return {"size": _size(size), **({"label": int(label)} if colon else {})}


def _read_partial(value: str) -> dict[str, Any]:
    label, _, size = value.partition(":")
    return {"label": int(label), "size": _size(size)}


def _read_extreme(value: str) -> dict[str, Any]:
    size, _, file = value.partition(":")
    if not file:
        raise ValueError(value)
    return {"size": _size(size), "file": Path(file)}


def _size(text: str) -> int | float:
    size = ast.literal_eval(text)
    if type(size) not in (int, float):
        raise ValueError(f"{text!r} is no number")
    return size


def _draw_plain(
    field: str, asked: Asked, dataset: Dataset, seed: int, features: Features | None
) -> np.ndarray:
    del features
    given = {field: getattr(asked, field)}
    return draw(dataset, kind=asked.kind, seed=seed, **given)


def _draw_finer(
    asked: Asked, dataset: Dataset, seed: int, features: Features | None
) -> np.ndarray:
    if not asked.labels:
        return _draw_plain("label", asked, dataset, seed, features)
    parts = [
        draw(dataset, kind=asked.kind, label=label, seed=seed) for label in asked.labels
    ]
    return check_indices(np.concatenate(parts), len(dataset.splits.train.targets))


def _draw_partial(
    asked: Asked, dataset: Dataset, seed: int, features: Features | None
) -> np.ndarray:
    del features
    assert asked.label is not None
    targets = dataset.splits.train.targets
    return partial_set(seed, targets, asked.label, float(asked.size))


def _draw_hard(
    kind: str, asked: Asked, dataset: Dataset, seed: int, features: Features | None
) -> np.ndarray:
    del seed, features
    words = {"size": asked.size, "label": asked.label, "file": asked.file}
    return draw_hard(dataset, kind=kind, **words)


def _draw_cluster(
    asked: Asked, dataset: Dataset, seed: int, features: Features | None
) -> np.ndarray:
    """Within a class of the model's own features, or of all examples."""
    del seed
    if features is None:
        raise ValueError(
            f"request {asked.text!r} clusters by a trained original, and there is none "
            "here"
        )
    chosen: dict[str, Any] = {}
    if asked.label is not None:
        labels = np.asarray(dataset.splits.train.targets)
        class_set(labels, asked.label)
        chosen = {"labels": labels, "label": asked.label}
    return clustered_set(features(asked.kind), asked.size, **chosen)


KINDS: Mapping[str, Kind] = {
    "random": Kind(
        ("random:0.1", "random:100"),
        "examples drawn uniformly",
        _read_size,
        functools.partial(_draw_plain, "size"),
    ),
    "class": Kind(
        ("class:3",),
        "every example of a class",
        _read_label,
        functools.partial(_draw_plain, "label"),
    ),
    "partial": Kind(
        ("partial:5:0.4",),
        "a share of every class from one on",
        _read_partial,
        _draw_partial,
    ),
    "sub_class": Kind(
        ("sub_class:3", "sub_class:3,8,13"),
        "every example of a finer class inside of a class, or of several",
        _read_labels,
        _draw_finer,
    ),
    "file": Kind(
        ("file:indices.npy",),
        "the examples that a file lists",
        _read_file,
        functools.partial(_draw_plain, "file"),
    ),
    "clustered": Kind(
        ("clustered:100", "clustered:6:100 (within class 6)"),
        "examples furthest along the principal direction of an original's embeddings",
        _read_cluster,
        _draw_cluster,
        trained=True,
    ),
    "gradients": Kind(
        ("gradients:100", "gradients:6:100"),
        "the same of the gradients of their losses",
        _read_cluster,
        _draw_cluster,
        trained=True,
    ),
    "inputs": Kind(
        ("inputs:100", "inputs:6:100"),
        "the same of the raw inputs",
        _read_cluster,
        functools.partial(_draw_hard, "clustered"),
    ),
    "highest": Kind(
        ("highest:100:scores.npy",),
        "examples of the highest score in a file",
        _read_extreme,
        functools.partial(_draw_hard, "highest"),
    ),
    "lowest": Kind(
        ("lowest:100:scores.npy",),
        "examples of the lowest score in a file",
        _read_extreme,
        functools.partial(_draw_hard, "lowest"),
    ),
}
"""Kind of forget set -> how it is written, and how it is drawn."""
