"""Interpret-then-Deactivate as rows of the table: what it learns, and what it reads."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.canvas.editors import Concept
from unlearn_jax.methods.editing.deactivation import (
    Deactivation,
    deactivation,
    guarded,
)
from unlearn_jax.methods.editing.dictionary import learn_dictionary
from unlearn_jax.models.resumed import Between, between
from unlearn_jax.models.sparse_autoencoder import Dictionary
from unlearn_jax.models.transformer import Shape
from unlearn_jax.types import Array, Variables

HEADS = 4
"""Of the text encoder, which its parameters do not tell."""
ACTIVE = 8
"""k, of 48 dimensions."""

Learner = Callable[[Concept, np.ndarray], Deactivation]
"""Of a concept, from prompts none of which is among those that are given."""


class Layer(NamedTuple):
    """Description: where in the text encoder of a generator a guard works.

    Attributes:
        parts: The encoder in two.
        text: Its parameters.
    """

    parts: Between
    text: Variables

    def read(self, tokens: Any) -> Array:
        """The stream behind the block, (n, t, d)."""
        return self.parts.read(self.text, jnp.asarray(tokens))

    def resume(self, tokens: Any, values: Any) -> Array:
        """Embeddings, (n, t, d)."""
        return self.parts.resume(self.text, jnp.asarray(tokens), values)


def layer(concept: Concept) -> Layer:
    """Behind the first half of the blocks; the release works behind 8 of 12."""
    params = concept.variables.params["text"]
    vocabulary, width = params["tokens"]["embedding"].shape
    depth, size = len(params["blocks"]), width // HEADS
    hidden = params["blocks"][0]["up"]["kernel"].shape[1]
    tokens = concept.denoiser.tokens
    sizes = (vocabulary, tokens, depth, width, HEADS, HEADS, size, hidden)
    parts = between(Shape(*sizes), (depth - 1) // 2)
    return Layer(parts, Variables(params, {}))


def learning(concept: Concept, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every sentence of the concept, and every other, without those that are asked."""
    own, _, others = concept.wanted.sentences()
    known = {tuple(row) for row in np.asarray(asked)}

    def left(rows: np.ndarray) -> np.ndarray:
        return rows[[tuple(row) not in known for row in rows]]

    return left(own), left(others)


def dictionary_of(values: Any, **options: Any) -> Dictionary:
    """A sparse autoencoder of activations (n, t, d), the same whenever it is asked."""
    rows = values.reshape(-1, values.shape[-1])
    return learn_dictionary(jax.random.key(4000), rows, active=ACTIVE, **options)


def _learner(*, gate: bool = True, **options: Any) -> Learner:
    def learned(concept: Concept, asked: np.ndarray) -> Deactivation:
        own, others = map(layer(concept).read, learning(concept, asked))
        dictionary = dictionary_of(jnp.concatenate([own, others]))
        found = deactivation(dictionary, own, others, active=ACTIVE, **options)
        none = jnp.full_like(found.threshold, -jnp.inf)
        return found if gate else found._replace(threshold=none)

    return learned


LEARNERS: Mapping[str, Learner] = {
    "itd": _learner(),
    "itd: zeroed": _learner(gain=0.0),
    "itd: no gate": _learner(gate=False),
    "itd: released gate": _learner(as_published=True),
}
"""Rows whose guard is learned before it reads."""


def deactivated_text(concept: Concept, tokens: Any, found: Deactivation) -> Array:
    """Embeddings of prompts (n, t) behind the guard."""
    own = layer(concept)

    def encode(tokens: Any) -> Array:
        return concept.denoiser.encode(concept.variables, tokens)

    tokens = jnp.asarray(tokens)
    return guarded(found, tokens, encode, own.read, own.resume, active=ACTIVE)
