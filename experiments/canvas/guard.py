"""A guard filters what prompts say and forgets nothing: what a sampler then reads."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from experiments.canvas.editors import Concept
from unlearn_jax.data.captions import END, encoded
from unlearn_jax.methods.editing.safree import left_out, safree
from unlearn_jax.methods.editing.trce import first_end
from unlearn_jax.types import Array


class Read(NamedTuple):
    """Value: what the sampler reads for each prompt.

    Attributes:
        first: (n, t, d), in the first steps.
        later: (n, t, d), from then on.
        steps: (n,), how many read ``first``.
    """

    first: Any
    later: Any
    steps: Any


class Guard(Protocol):
    """Of a concept, on prompts (n, t): what is read in their place."""

    def __call__(self, concept: Concept, tokens: Any) -> Read:
        """Traced."""
        ...


def unguarded(text: Any) -> Read:
    """Embeddings as they are, in all steps."""
    return Read(text, text, np.zeros(len(text), np.int32))


def _safree(concept: Concept, tokens: Any) -> Read:
    """SAFREE, whose keywords are the names of what is erased, each alone.

    The embedding at a prompt's first end is its pooled one.
    """
    variables, encode = concept.variables, concept.denoiser.encode

    def pooled(prompts: Any, place: Any) -> Array:
        return encode(variables, prompts)[:, place]

    words = np.stack([encoded(concept.wanted.grammar, w) for w in _names(concept)])
    ends = np.argmax(words == END, axis=1)
    keywords = encode(variables, words)[np.arange(len(words)), ends]

    def one(prompt: Array) -> tuple[Array, Array]:
        place = jnp.minimum(first_end(prompt, END), len(prompt) - 1)
        active = jnp.arange(len(prompt)) < place
        text = encode(variables, prompt[None])[0]
        without = left_out(lambda each: pooled(each, place), prompt, blank=END)
        found = safree(text, without, keywords, active)
        return found.embeddings, found.steps

    tokens = jnp.asarray(tokens)
    first, steps = jax.lax.map(one, tokens)
    return Read(first, encode(variables, tokens), steps.astype(jnp.int32))


def _names(concept: Concept) -> list[str]:
    wanted, grammar = concept.wanted, concept.wanted.grammar
    own, styles = grammar.classes[wanted.label], grammar.styles[wanted.style]
    if wanted.kind == "pair":
        return [f"{style} {name}" for style in styles for name in own]
    return list(own if wanted.kind == "class" else styles)


GUARDS: Mapping[str, Guard] = {"safree": _safree}
"""Editors that change no weight, and what they do to prompts."""
