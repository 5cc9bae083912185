"""The forms in which a ridge regression is kept, and requests in pieces for them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import jit

from experiments.exactness.requests import Request
from unlearn_jax.solvers.refusal import APPLIED
from unlearn_jax.solvers.ridge_gram import (
    GramRidge,
    gram_add,
    gram_remove,
    gram_solve,
    gram_start,
)
from unlearn_jax.solvers.ridge_inverse import (
    inverse_add,
    inverse_remove,
    inverse_replace,
    inverse_start,
)
from unlearn_jax.solvers.ridge_kept import kept_add, kept_remove, kept_start, repair
from unlearn_jax.types import Batch

GRAM, INVERSE, KEPT, SINGLE = "sums", "inverse", "sums and inverse", "sums, float32"
_SIZES = (64, 256, 512, 1024)
"""Rows of a piece of a request, padded; so short that float32 sums are exact too."""


class Features(NamedTuple):
    """Description: the rows, and how they are looked at.

    Attributes:
        rows: Random features of all training rows, on their grid, in float32.
        targets: Class of each.
        classes: Number of outputs.
        test: Random features of the rows to predict.
        l2s: Ridges.
        single_l2s: Ridges that float32 is tried with.
        watch: The inverse is compared with the sums each so many requests.
        checks: Requests after which all is compared with the reference.
        kept_from: Request from which sums and inverse are kept together.
        single_from: Request from which float32 follows.
    """

    rows: np.ndarray
    targets: np.ndarray
    classes: int
    test: np.ndarray
    l2s: tuple[float, ...]
    single_l2s: tuple[float, ...]
    watch: int
    checks: tuple[int, ...]
    kept_from: int
    single_from: int


class Pieces(NamedTuple):
    """Value: a request cut into pieces of few sizes; ``pair`` if it is one exchange."""

    forget: list[Batch]
    learn: list[Batch]
    pair: bool


def pieces_of(given: Features, request: Request) -> Pieces:
    """The rows of a request, padded."""
    forget, learn = (
        [
            _batch(given, part, next(size for size in _SIZES if size >= len(part)))
            for part in _parts(rows)
        ]
        for rows in (request.forget, request.learn)
    )
    shapes = [[len(batch.weights) for batch in part] for part in (forget, learn)]
    return Pieces(forget, learn, len(forget) == 1 and shapes[0] == shapes[1])


def _batch(
    given: Features, chosen: np.ndarray, size: int, dtype: Any = np.float64
) -> Batch:
    n = len(chosen)
    rows = np.zeros((size, given.rows.shape[1]), dtype)
    rows[:n] = given.rows[chosen]
    targets = np.zeros((size, given.classes), dtype)
    targets[:n] = onehot(given, chosen)
    weights = (np.arange(size) < n).astype(dtype)
    return Batch(jnp.asarray(rows), jnp.asarray(targets), jnp.asarray(weights))


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    most = _SIZES[-1]
    return [rows[first : first + most] for first in range(0, len(rows), most)]


def onehot(given: Features, chosen: np.ndarray) -> np.ndarray:
    """Targets of rows, a column for each class."""
    return (given.targets[chosen, None] == np.arange(given.classes)).astype(np.float64)


def apply(name: str, state: Any, pieces: Pieces) -> tuple[Any, int]:
    """The state after all pieces that were not refused, and the first refusal."""
    if name == SINGLE:
        cast = [
            [Batch(*(leaf.astype(jnp.float32) for leaf in b)) for b in part]
            for part in pieces[:2]
        ]
        pieces = Pieces(cast[0], cast[1], pieces.pair)
    remove, add, *replace = _steps(name)
    if pieces.pair and replace:
        state = replace[0](state, pieces.forget[0], pieces.learn[0])
        return state, int(state.code)
    code = APPLIED
    for step, part in ((remove, pieces.forget), (add, pieces.learn)):
        for batch in part:
            state = step(state, batch)
            code = code if code != APPLIED else int(state.code)
    return state, code


@functools.cache
def _steps(name: str) -> tuple[Callable[..., Any], ...]:
    """Compiled: remove, add, and replace where it is one step."""
    options: dict[str, Any] = {
        GRAM: {"slices": 1, "solve": False},
        SINGLE: {"slices": 3, "solve": False},
        KEPT: {"slices": 1},
    }.get(name, {})
    found = {
        GRAM: (gram_remove, gram_add),
        SINGLE: (gram_remove, gram_add),
        INVERSE: (inverse_remove, inverse_add, inverse_replace),
        KEPT: (kept_remove, kept_add),
        "solve": (gram_solve,),
        "repair": (repair,),
    }[name]
    return tuple(jit(functools.partial(step, **options)) for step in found)


def solve(gram: GramRidge) -> GramRidge:
    """The sums with their weights brought up to date."""
    return _steps("solve")[0](gram)


def with_l2(gram: GramRidge, l2: float) -> GramRidge:
    """The same sums under another ridge."""
    return gram._replace(l2=jnp.asarray(l2, gram.gram.dtype))


def learn(given: Features, chosen: np.ndarray, dtype: Any = np.float64) -> GramRidge:
    """Sums of rows, in their order, as if nothing else had ever been."""
    state = gram_start(given.rows.shape[1], given.classes, l2=1.0, dtype=dtype)
    add = _steps(SINGLE if dtype == np.float32 else GRAM)[1]
    for part in _parts(chosen):
        state = add(state, _batch(given, part, _SIZES[-1], dtype))
    return state


def kept(gram: GramRidge, l2: float) -> Any:
    """Sums, and beside them their inverse."""
    f, k = gram.weight.shape
    start = kept_start(f, k, l2=l2)
    start = start._replace(sums=with_l2(gram, l2), count=gram.count)
    return _steps("repair")[0](start)._replace(repairs=jnp.zeros_like(start.repairs))


def inverse(gram: GramRidge, l2: float) -> Any:
    """Where Woodbury's updates begin: the inverse of the sums."""
    f, k = gram.weight.shape
    made = kept(gram, l2)
    return inverse_start(f, k, l2=l2)._replace(
        weight=made.weight,
        inverse=made.inverse,
        count=made.count,
        moment=gram.moment,
        moment_low=gram.moment_low,
    )
