"""Ridge regression as state: one contract, exact forms, classes that come and go."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp

from unlearn_jax.solvers.refusal import APPLIED, settle
from unlearn_jax.solvers.ridge_gram import (
    BLOCK,
    GramRidge,
    gram_add,
    gram_remove,
    gram_replace,
    gram_start,
)
from unlearn_jax.solvers.ridge_inverse import (
    Ridge,
    inverse_add,
    inverse_remove,
    inverse_replace,
    inverse_start,
)
from unlearn_jax.solvers.ridge_kept import (
    KeptRidge,
    kept_add,
    kept_remove,
    kept_replace,
    kept_start,
)
from unlearn_jax.types import Array, Batch

State = TypeVar("State", Ridge, GramRidge, KeptRidge)


class RidgeForm(NamedTuple):
    """Description: one exact way to keep a ridge regression.

    Every state has ``weight`` (f, k), ``count`` and ``code``; see ``refusal``.

    Attributes:
        start: ``(f, k, *, l2, dtype) -> state``.
        add: ``(state, rows) -> state``.
        remove: ``(state, rows) -> state``; refused requests change ``code`` alone.
        replace: ``(state, old, new) -> state``; both or neither.
    """

    start: Callable[..., Any]
    add: Callable[[Any, Batch], Any]
    remove: Callable[[Any, Batch], Any]
    replace: Callable[[Any, Batch, Batch], Any]


FORMS = {
    "gram": RidgeForm(gram_start, gram_add, gram_remove, gram_replace),
    "inverse": RidgeForm(inverse_start, inverse_add, inverse_remove, inverse_replace),
    "kept": RidgeForm(kept_start, kept_add, kept_remove, kept_replace),
}
"""The sums G, Q, solved anew; the inverse (G + l2)⁻¹, updated by Woodbury; both."""


def ridge_fit(rows: Batch, *, l2: float, form: str = "gram", block: int = BLOCK) -> Any:
    """Fit all rows, a block at a time.

    Args:
        rows: Features (n, f), targets (n, k), weights (n,).
        l2: Coefficient of ‖W‖².
        form: A name in ``FORMS``.
        block: Rows at a time; the Gram form has blocks of its own.

    Returns:
        The state; read its ``code``: where any block was refused, nothing is learnt.

    Raises:
        ValueError: an unknown form, or rows of wrong shape or dtype.

    Cost: n f², and f³/3.
    """
    chosen = ridge_form(form)
    f, k = jnp.shape(rows.inputs)[-1], jnp.shape(rows.targets)[-1]
    empty = state = chosen.start(f, k, l2=l2, dtype=jnp.asarray(rows.inputs).dtype)
    if form == "gram":
        return gram_add(state, rows)
    code = state.code
    for first in range(0, jnp.shape(rows.weights)[0], block):
        part = slice(first, first + block)
        state = chosen.add(state, Batch(*(leaf[part] for leaf in rows)))
        code = jnp.where(code == APPLIED, state.code, code)
    return settle(empty, state, code)


def ridge_form(name: str) -> RidgeForm:
    """The form of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in FORMS:
        raise ValueError(f"form is {name!r}; choose from {', '.join(FORMS)}")
    return FORMS[name]


def add_class(state: State, position: int | None = None) -> State:
    """A further output whose target was 0 on all rows so far: one-hot labels.

    Args:
        state: Any form.
        position: Index of the new column; None: the last.

    Cost: one copy of what has columns; the fit of the others does not change.
    """
    k = state.weight.shape[1]
    position = k if position is None else position
    if not 0 <= position <= k:
        raise ValueError(f"position is {position}, expected 0 to {k}")

    def edit(leaf: Array) -> Array:
        fresh = jnp.zeros((leaf.shape[0], 1), leaf.dtype)
        return jnp.concatenate([leaf[:, :position], fresh, leaf[:, position:]], axis=1)

    return _columns(state, edit)


def remove_class(state: State, position: int) -> State:
    """Drop an output; remove the rows of its class first.

    Raises:
        ValueError: there is no such column.
    """
    k = state.weight.shape[1]
    if not 0 <= position < k:
        raise ValueError(f"position is {position}, expected 0 to {k - 1}")

    def edit(leaf: Array) -> Array:
        return jnp.concatenate([leaf[:, :position], leaf[:, position + 1 :]], axis=1)

    return _columns(state, edit)


def _columns(state: State, edit: Callable[[Array], Array]) -> State:
    names = ("weight", "moment", "moment_low")
    held = {name: edit(getattr(state, name)) for name in names if name in state._fields}
    if isinstance(state, KeptRidge):
        held["sums"] = _columns(state.sums, edit)
    return state._replace(**held)
