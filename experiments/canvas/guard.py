"""A guard looks at prompts and forgets nothing: what a sampler then reads."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from experiments.canvas.deactivate import LEARNERS, deactivated_text
from experiments.canvas.editors import Concept
from unlearn_jax.data.captions import END, encoded
from unlearn_jax.methods.editing.safree import left_out, safree
from unlearn_jax.methods.editing.trce import first_end
from unlearn_jax.methods.erasing.adapters import transport
from unlearn_jax.types import Array


class Read(NamedTuple):
    """Value: what the sampler reads for each prompt.

    Attributes:
        first: (n, t, d), in the first steps.
        later: (n, t, d), from then on.
        steps: (n,), how many read ``first``.
        gains: (n,), how much of what was tuned applies to each; None: all of it.
    """

    first: Any
    later: Any
    steps: Any
    gains: Any = None


class Guard(Protocol):
    """Of a concept, on prompts (n, t): what is read in their place.

    ``learned`` is what a row of ``LEARNERS`` has learned of the concept.
    """

    def __call__(self, concept: Concept, tokens: Any, learned: Any = None) -> Read:
        """Traced."""
        ...


def unguarded(text: Any) -> Read:
    """Embeddings as they are, in all steps."""
    return Read(text, text, np.zeros(len(text), np.int32))


def _safree(concept: Concept, tokens: Any, learned: Any = None) -> Read:
    """SAFREE, whose keywords are the names of what is erased, each alone.

    The embedding at a prompt's first end is its pooled one.
    """
    variables, encode = concept.variables, concept.denoiser.encode
    _, keywords = _named(concept)

    def pooled(prompts: Any, place: Any) -> Array:
        return encode(variables, prompts)[:, place]

    def one(prompt: Array) -> tuple[Array, Array]:
        place = jnp.minimum(first_end(prompt, END), len(prompt) - 1)
        active = jnp.arange(len(prompt)) < place
        text = encode(variables, prompt[None])[0]
        without = left_out(lambda each: pooled(each, place), prompt, blank=END)
        found = safree(text, without, keywords, active)
        return found.embeddings, found.steps

    del learned
    tokens = jnp.asarray(tokens)
    first, steps = jax.lax.map(one, tokens)
    return Read(first, encode(variables, tokens), steps.astype(jnp.int32))


def _transported(concept: Concept, tokens: Any, learned: Any = None) -> Read:
    """SPM's gate: an adapter applies as a prompt is near a name or has it."""
    del learned
    tokens = jnp.asarray(tokens)
    text = concept.denoiser.encode(concept.variables, tokens)
    place = jnp.minimum(first_end(tokens, END), tokens.shape[1] - 1)
    pooled = jnp.take_along_axis(text, place[:, None, None], axis=1)[:, 0]
    gains = [
        transport(pooled, tokens, near, words[words != END])
        for words, near in zip(*_named(concept), strict=True)
    ]
    return unguarded(text)._replace(gains=jnp.max(jnp.stack(gains), axis=0))


def _deactivated(concept: Concept, tokens: Any, learned: Any = None) -> Read:
    """Interpret-then-Deactivate, in all steps."""
    if learned is None:
        raise ValueError(
            "the guard has learned nothing: give what its row of LEARNERS learns"
        )
    return unguarded(deactivated_text(concept, tokens, learned))


def _named(concept: Concept) -> tuple[np.ndarray, Array]:
    """Each name of what is erased, alone as a prompt, and its pooled embedding."""
    words = np.stack([encoded(concept.wanted.grammar, w) for w in _names(concept)])
    ends = np.argmax(words == END, axis=1)
    text = concept.denoiser.encode(concept.variables, words)
    return words, text[np.arange(len(words)), ends]


def _names(concept: Concept) -> list[str]:
    wanted, grammar = concept.wanted, concept.wanted.grammar
    own, styles = grammar.classes[wanted.label], grammar.styles[wanted.style]
    if wanted.kind == "pair":
        return [f"{style} {name}" for style in styles for name in own]
    return list(own if wanted.kind == "class" else styles)


GUARDS: Mapping[str, Guard] = {
    "safree": _safree,
    "spm: transport": _transported,
    **dict.fromkeys(LEARNERS, _deactivated),
}
"""Rows whose sampler looks at prompts, and what it makes of them."""
