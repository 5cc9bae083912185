"""A backbone that is trained once, frozen, and asked for its features."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.frame.bench import Bench
from experiments.frame.problem import Network
from experiments.frame.progress import progress
from unlearn_jax.data.batch import Splits
from unlearn_jax.methods.analytic import frozen_features
from unlearn_jax.models import MODELS
from unlearn_jax.models.model import Model
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.storage.piece import Piece
from unlearn_jax.train.fit import fit_watched
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch

BACKBONES = tuple(name for name in MODELS if name not in ("linear", "transformer"))
"""Models with a hidden layer to freeze, of one feature vector for each example."""


def kept_features(
    bench: Bench,
    network: Network,
    model: Model,
    recipe: Recipe,
    data: Batch,
    splits: Splits,
    *,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`backbone_features`, found again by every run that would train the same.

    Args:
        bench: Of the run.
        network: The words that ``model`` was built from.
        model: The backbone.
        recipe: How it is trained.
        data: On what.
        splits: Whose features are wanted; the data of the run.
        seed: Of the training.
    """

    def make() -> Piece:
        found = backbone_features(model, recipe, data, splits, seed=seed)
        return Piece(dict(zip(("train", "test"), found, strict=True)), {})

    leaves = enumerate(jax.tree.leaves(data))
    on = digest_arrays(b"", "batch", {str(i): np.asarray(leaf) for i, leaf in leaves})
    words = {"model": network, "recipe": recipe, "seed": seed, "on": on.hex()}
    arrays = bench.keep("features", make, known_by=words).arrays
    return arrays["train"], arrays["test"]


def backbone_features(
    model: Model, recipe: Recipe, data: Batch, splits: Splits, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frozen features of all training and test examples, (n, d) each.

    Args:
        model: The backbone.
        recipe: How it is trained, by cross-entropy.
        data: On what; a part of the training examples, maybe.
        splits: Whose features are wanted.
        seed: Of the training.
    """
    learner = Learner(model, cross_entropy, 0.0, recipe)
    placed: Any = Batch(*(jnp.asarray(leaf) for leaf in data))
    with progress("train the backbone", recipe.epochs) as advance:
        variables = fit_watched(
            jax.random.key(seed), learner, placed, watch=lambda _: advance(1)
        )
    features = frozen_features(model, variables)
    found = []
    with progress("frozen features", 2) as advance:
        for part in splits:
            found.append(features(part.inputs))
            advance(1)
    return found[0], found[1]
