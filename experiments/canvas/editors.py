"""Who edits, and which rows each takes of which prompts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from unlearn_jax.data.captions import END, Grammar, captions, encoded, paraphrases
from unlearn_jax.methods.editing.denoiser import prompt_keys, text_maps
from unlearn_jax.methods.editing.rece import rece
from unlearn_jax.methods.editing.rows import anchor_rows, join_rows, preserve_rows
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.methods.editing.trce import first_end, trce
from unlearn_jax.methods.editing.uce import uce
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.types import Params, Variables


class Concept(NamedTuple):
    """Description: what is erased from which generator.

    Attributes:
        denoiser: The generator.
        variables: Before any edit.
        grammar: Of its captions.
        target: Class to erase.
        anchor: Class in its place.
    """

    denoiser: Denoiser
    variables: Variables
    grammar: Grammar
    target: int
    anchor: int

    @property
    def maps(self) -> Params:
        """W₀."""
        return text_maps(self.denoiser, self.variables)

    def plain(self, label: int) -> np.ndarray:
        """The plain prompt of a class in each style, (styles, t)."""
        styles = np.arange(len(self.grammar.styles))
        return captions(self.grammar, styles, np.full(len(styles), label))

    def others(self) -> np.ndarray:
        """Plain prompts of all other classes, and the null prompt."""
        labels = [c for c in range(len(self.grammar.classes)) if c != self.target]
        null = encoded(self.grammar, "")[None]
        return np.concatenate([*map(self.plain, labels), null])

    def keys(self, prompts: np.ndarray, places: Any = None) -> Any:
        """Embeddings of prompts at some positions, all by default."""
        if places is not None:
            places = jnp.asarray(places)
            places = jnp.broadcast_to(places, (len(prompts), places.shape[-1]))
        return prompt_keys(self.denoiser, self.variables, prompts, places)


Editor = Callable[[Concept], Params]
_WORD, _ENDS = 3, (4, 5)
"""Where plain prompts have the class word, and their ends."""


def _uce(places: Any, *, nothing: bool = False) -> Editor:
    def edited(concept: Concept) -> Params:
        anchors = concept.plain(concept.anchor)
        if nothing:
            anchors = np.full_like(anchors, END)
        return uce(
            concept.maps,
            concept.keys(concept.plain(concept.target), places),
            concept.keys(anchors, places),
            concept.keys(concept.others()),
        )

    return edited


def _alone(concept: Concept) -> Params:
    null = encoded(concept.grammar, "")[None]
    places = (_WORD, *_ENDS)
    return uce(
        concept.maps,
        concept.keys(concept.plain(concept.target), places),
        concept.keys(concept.plain(concept.anchor), places),
        concept.keys(null),
    )


def sentences_of(concept: Concept, label: int) -> np.ndarray:
    """Every sentence for a class, by the words beside it in one order for all."""
    styles = range(len(concept.grammar.styles))
    return np.concatenate([paraphrases(concept.grammar, s, label) for s in styles])


def _paraphrases(concept: Concept) -> Params:
    """Every sentence for the target, weighted together as the plain prompts are."""
    erased, anchors = (
        sentences_of(concept, label) for label in (concept.target, concept.anchor)
    )
    kept = [
        sentences_of(concept, label)
        for label in range(len(concept.grammar.classes))
        if label != concept.target
    ]
    weight = len(concept.grammar.styles) / len(erased)
    rows = join_rows(
        anchor_rows(concept.maps, concept.keys(erased), concept.keys(anchors), weight),
        preserve_rows(concept.maps, concept.keys(np.concatenate(kept)), weight),
        preserve_rows(concept.maps, concept.keys(encoded(concept.grammar, "")[None])),
    )
    return edit(concept.maps, rows, l2=0.5)


def _rece(**options: Any) -> Editor:
    def edited(concept: Concept) -> Params:
        places = (_WORD, *_ENDS)
        found = rece(
            concept.maps,
            concept.keys(concept.plain(concept.target), places),
            concept.keys(concept.plain(concept.anchor), places),
            concept.keys(concept.others()),
            **options,
        )
        return found.maps[-1]

    return edited


def _trce(concept: Concept) -> Params:
    malicious, safe = (
        sentences_of(concept, label) for label in (concept.target, concept.anchor)
    )
    ends = [first_end(each, END)[:, None] for each in (malicious, safe)]
    others = concept.others()
    return trce(
        concept.maps,
        concept.keys(malicious, ends[0]),
        concept.keys(safe, ends[1]),
        concept.keys(others[:-1], first_end(others[:-1], END)[:, None]),
    )


def _control(concept: Concept) -> Params:
    """Noise of the size of the edit: what any change of that size does."""
    edited, before = _uce((_WORD, *_ENDS))(concept), concept.maps
    random = np.random.default_rng(0)
    moved = {}
    for name, leaf in before.items():
        noise = random.normal(size=leaf.shape).astype(leaf.dtype)
        size = jnp.linalg.norm(edited[name] - leaf) / np.linalg.norm(noise)
        moved[name] = leaf + size * noise
    return moved


EDITORS: Mapping[str, Editor] = {
    "noise": _control,
    "uce": _uce((_WORD, *_ENDS)),
    "uce, class word": _uce((_WORD,)),
    "uce, ends": _uce(_ENDS),
    "uce, all rows": _uce(None),
    "uce, to nothing": _uce((_WORD, *_ENDS), nothing=True),
    "uce, preserving nothing": _alone,
    "uce, paraphrases": _paraphrases,
    "rece": _rece(),
    "rece, released": _rece(as_published=True),
    "trce, stage 1": _trce,
}
"""Name of a row -> the maps after the edit."""
SHOWN = tuple(EDITORS)
"""What the small scale compares."""
