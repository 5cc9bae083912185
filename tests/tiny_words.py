"""A language model so small that a test spends its time compiling: a decayed memory."""

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data.tokens import IGNORED
from unlearn_jax.models.model import Model
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch, Variables

VOCABULARY, WIDTH = 7, 5


def reader(dtype=jnp.float64, vocabulary=VOCABULARY, width=WIDTH):
    """Reads from left to right: a running mean of embeddings, a layer, a head."""

    def init(key):
        keys = jax.random.split(key, 3)
        shapes = {
            "embedding": (vocabulary, width),
            "hidden": (width, width),
            "head": (width, vocabulary),
        }
        params = {
            name: jax.random.normal(k, shape, dtype)
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
        return Variables(params, {})

    def features(variables, tokens):
        params = variables.params
        read = params["embedding"][tokens]
        count = 1 + jnp.arange(tokens.shape[1], dtype=dtype)
        mean = jnp.cumsum(read, axis=1) / count[None, :, None]
        return jnp.tanh(read + mean @ params["hidden"])

    def apply(variables, tokens):
        return features(variables, tokens) @ variables.params["head"]

    return Model(init, apply, lambda key, v, tokens: (apply(v, tokens), v), features)


def learner(dtype=jnp.float64, *, loss=sequence_nll, l2=0.0, **recipe):
    """A learner of the reader."""
    settings = {"epochs": 5, "batch_size": 8, "weight_decay": 0.0} | recipe
    return Learner(reader(dtype), loss, l2, Recipe(**settings))


def examples(count=24, length=6, seed=0):
    """Sequences that mostly count upwards, the first tokens of each a question."""
    random = np.random.default_rng(seed)
    first = random.integers(0, VOCABULARY, (count, 1))
    steps = random.choice([1, 2], (count, length), p=[0.8, 0.2])
    whole = np.concatenate([first, first + np.cumsum(steps, 1)], 1) % VOCABULARY
    targets = whole[:, 1:].astype(np.int32)
    targets[np.arange(length)[None] < np.arange(count)[:, None] % 3] = IGNORED
    tokens = whole[:, :-1].astype(np.int32)
    return Batch(tokens, targets, np.ones(count, np.float32))
