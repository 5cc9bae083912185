"""Value vectors that the forgotten facts are read from: how far they have moved."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.authors.build import Setting
from experiments.language.trials import (
    over_models,
    present,
    stats_of,
    variables_of,
)
from unlearn_jax.evaluation.concepts import concept_change, concerned
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Array, Batch, Params, Variables

COUNT = 20
"""Vectors that are compared, at most."""
_SHARE = 20
"""One token in so many is counted as one that a vector speaks for."""


class Moved(NamedTuple):
    """Value: means over the vectors, see ``evaluation.concepts``."""

    jaccard: float
    cosine: float


def mover(setting: Setting, originals: Any) -> Callable[[Any], list[Moved]]:
    """``params (models, p) -> each beside the original of its place``.

    The vectors are those whose gradient on the forget set is largest in the original:
    rows of all ``down`` kernels, those of frozen blocks aside, whose gradient is 0.

    Cost: a gradient of the forget set for each original, once; rows of kernels then.
    """
    task, (model, plain) = setting.task, setting.unfolded

    def where(at: Variables, forget: Batch) -> Array:
        merged = plain(at)
        objective = bind(model, merged.stats, task.learner.loss)
        slopes = rows_of(jax.grad(objective.risk)(merged.params, forget))
        return concerned(slopes, min(COUNT, len(slopes)))

    def vectors(many: Any, places: Any, stats: Any) -> Array:
        def one(pair: Any) -> Array:
            flat, own = pair
            return rows_of(plain(variables_of(task.learner, flat, stats)).params)[own]

        return jax.lax.map(one, (many, places))

    stats = jax.tree.map(jnp.asarray, stats_of(task))
    places = over_models(task, where, present(task.request.forget))(originals)
    pick = jax.jit(vectors)
    before = pick(jnp.asarray(originals), places, stats)
    words = over_models(task, lambda at: head_of(plain(at).params))(originals)
    top = max(1, words.shape[1] // _SHARE)

    def moved(params: Any) -> list[Moved]:
        after = pick(jnp.asarray(params), places, stats)
        return [
            Moved(float(found.jaccard.mean()), float(found.cosine.mean()))
            for found in (
                concept_change(*own, top=top)
                for own in zip(before, after, words, strict=True)
            )
        ]

    return moved


def rows_of(params: Params) -> Array:
    """(m, d) rows of every ``down`` kernel of a transformer, block by block."""
    blocks: Any = params["blocks"]
    if "down" in blocks:  # stacked
        kernel = blocks["down"]["kernel"]
        return kernel.reshape(-1, kernel.shape[-1])
    return jnp.concatenate([blocks[at]["down"]["kernel"] for at in sorted(blocks)])


def head_of(params: Params) -> Array:
    """(v, d) output embedding of a transformer, that of the tokens where it is tied."""
    own: Any = params
    return own["head"]["kernel"].T if "head" in own else own["tokens"]["embedding"]
