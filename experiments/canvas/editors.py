"""Who edits, and which rows each takes of which prompts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.canvas.request import Wanted
from unlearn_jax.data.captions import END, encoded
from unlearn_jax.methods.editing.denoiser import prompt_keys, text_maps, with_text_maps
from unlearn_jax.methods.editing.image_to_image import image_to_image
from unlearn_jax.methods.editing.maps import outputs
from unlearn_jax.methods.editing.rece import rece
from unlearn_jax.methods.editing.rows import anchor_rows, join_rows, preserve_rows
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.methods.editing.spans import least_used
from unlearn_jax.methods.editing.time_edit import PromptPair, time_edit
from unlearn_jax.methods.editing.trce import first_end, trce
from unlearn_jax.methods.editing.uce import uce
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.types import Params, Variables


class Concept(NamedTuple):
    """Description: what is erased from which generator.

    Attributes:
        denoiser: The generator.
        variables: Before any edit.
        wanted: What is erased, what takes its place, and the prompts of both.
    """

    denoiser: Denoiser
    variables: Variables
    wanted: Wanted

    @property
    def maps(self) -> Params:
        """W₀."""
        return text_maps(self.denoiser, self.variables)

    @property
    def spots(self) -> tuple[int, ...]:
        """Where plain prompts have the word that is erased, and their ends."""
        return (*self.wanted.words, *_ENDS)

    def keys(self, prompts: np.ndarray, places: Any = None) -> Any:
        """Embeddings of prompts at some positions, all by default."""
        if places is not None:
            places = jnp.asarray(places)
            places = jnp.broadcast_to(places, (len(prompts), places.shape[-1]))
        return prompt_keys(self.denoiser, self.variables, prompts, places)

    def null(self) -> np.ndarray:
        """The null prompt, (1, t)."""
        return encoded(self.wanted.grammar, "")[None]

    def pair(self, places: Any, *, nothing: bool = False) -> tuple[Any, Any]:
        """Keys of the plain prompts, and of what takes their place."""
        anchors = self.wanted.anchors()
        if nothing:
            anchors = np.full_like(anchors, END)
        return self.keys(self.wanted.plain(), places), self.keys(anchors, places)


Editor = Callable[[Concept], Params]
_ENDS = (4, 5)
"""Where plain prompts have their ends."""
_FREE = 12
"""Directions of the embeddings that an edit in the null space is confined to."""


def _uce(
    places: Callable[[Concept], Any] | tuple[int, ...] | None, *, nothing: bool = False
) -> Editor:
    def edited(concept: Concept) -> Params:
        own = places(concept) if callable(places) else places
        return uce(
            concept.maps,
            *concept.pair(own, nothing=nothing),
            concept.keys(concept.wanted.others()),
        )

    return edited


def _spots(concept: Concept) -> tuple[int, ...]:
    return concept.spots


def _word(concept: Concept) -> tuple[int, ...]:
    return concept.wanted.words


def _alone(concept: Concept) -> Params:
    null = concept.keys(concept.null())
    return uce(concept.maps, *concept.pair(concept.spots), null)


def _sentence_rows(concept: Concept) -> Any:
    """Every sentence, weighted together as the plain prompts are."""
    erased, anchors, kept = concept.wanted.sentences()
    weight = len(concept.wanted.plain()) / len(erased)
    return join_rows(
        anchor_rows(concept.maps, concept.keys(erased), concept.keys(anchors), weight),
        preserve_rows(concept.maps, concept.keys(kept), weight),
        preserve_rows(concept.maps, concept.keys(concept.null())),
    )


def _paraphrases(concept: Concept) -> Params:
    return edit(concept.maps, _sentence_rows(concept), l2=0.5)


def _null_space(concept: Concept) -> Params:
    """UCE where what others' keys have least of is all that may change."""
    rows = anchor_rows(concept.maps, *concept.pair(concept.spots))
    free = min(_FREE, jax.tree.leaves(concept.maps)[0].shape[0] // 2)
    basis = least_used(concept.keys(concept.wanted.others()), free)
    return edit(concept.maps, rows, l2=1e-3, basis=basis)


def _time(concept: Concept) -> Params:
    """Each plain prompt, token by token; words in other places stand for themselves."""
    pairs = []
    for source, destination in zip(
        concept.wanted.plain(), concept.wanted.anchors(), strict=True
    ):
        here, there = (concept.keys(prompt[None]) for prompt in (source, destination))
        # A substitution: the anchor's word stands where the erased one stood.
        pairs.append(PromptPair(here, there, source, source))
    return time_edit(concept.maps, pairs, end=END)


def _image_to_image(concept: Concept) -> Params:
    """Embeddings of the target give what noise gives, on the mean."""
    keys = concept.keys(concept.wanted.plain(), concept.spots)
    kept = concept.keys(concept.wanted.others())
    size = jnp.std(kept, axis=0, keepdims=True)
    noise = size * jax.random.normal(jax.random.key(0), (64, keys.shape[1]), keys.dtype)
    return image_to_image(concept.maps, kept, keys, outputs(concept.maps, noise))


def _rece(**options: Any) -> Editor:
    def edited(concept: Concept) -> Params:
        found = rece(
            concept.maps,
            *concept.pair(concept.spots),
            concept.keys(concept.wanted.others()),
            **options,
        )
        return found.maps[-1]

    return edited


def _trce(*, rows: bool) -> Editor:
    """First ends alone, as published; or, where ``rows``, keeping all rows of others.

    A release has tens of thousands of captions, whose ends span all dimensions; here
    they are fewer than these, and say nothing of words.
    """

    def edited(concept: Concept) -> Params:
        malicious, safe, _ = concept.wanted.sentences()
        ends = [first_end(each, END)[:, None] for each in (malicious, safe)]
        others = concept.wanted.others()
        kept = concept.keys(others)
        if not rows:
            others = others[:-1]
            kept = concept.keys(others, first_end(others, END)[:, None])
        return trce(
            concept.maps,
            concept.keys(malicious, ends[0]),
            concept.keys(safe, ends[1]),
            kept,
        )

    return edited


def _control(concept: Concept) -> Params:
    """Noise of the size of the edit: what any change of that size does."""
    edited, before = _uce(_spots)(concept), concept.maps
    random = np.random.default_rng(0)
    moved = {}
    for name, leaf in before.items():
        noise = random.normal(size=leaf.shape).astype(leaf.dtype)
        size = jnp.linalg.norm(edited[name] - leaf) / np.linalg.norm(noise)
        moved[name] = leaf + size * noise
    return moved


def _unchanged(concept: Concept) -> Params:
    return concept.maps


EDITORS: Mapping[str, Editor] = {
    "noise": _control,
    "uce": _uce(_spots),
    "uce: word": _uce(_word),
    "uce: ends": _uce(_ENDS),
    "uce: all rows": _uce(None),
    "uce: to nothing": _uce(_spots, nothing=True),
    "uce: preserving nothing": _alone,
    "uce: paraphrases": _paraphrases,
    "null space": _null_space,
    "time": _time,
    "rece": _rece(),
    "rece: released": _rece(as_published=True),
    "trce: stage 1": _trce(rows=False),
    "trce: keeping all rows": _trce(rows=True),
    "noise codes": _image_to_image,
    "safree": _unchanged,
    "itd": _unchanged,
    "itd: zeroed": _unchanged,
    "itd: no gate": _unchanged,
    "itd: released gate": _unchanged,
}
"""Name of a row -> the maps after the edit."""


def edited_by(name: str, concept: Concept) -> Variables:
    """The generator after an editor; traced."""
    maps = EDITORS[name](concept)
    return with_text_maps(concept.denoiser, concept.variables, maps)
