"""RECE: erase, look for the embedding that brings the concept back, erase that too."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.methods.editing.maps import as_keys, outputs, stacked
from unlearn_jax.methods.editing.rows import anchor_rows
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.methods.editing.state import edit_add, edit_start, edited
from unlearn_jax.methods.editing.uce import uce_rows
from unlearn_jax.options import check_whole
from unlearn_jax.solvers.ridge_checks import check_start
from unlearn_jax.types import Array, Params
from unlearn_kernels.precision import exact_product


class Rece(NamedTuple):
    """Value: the maps after each round, and what was found against the ones before.

    Attributes:
        maps: rounds + 1 trees; the first is that of UCE, the last the result. (As
            released, a detector on generated images chooses the round to keep; count
            those queries.)
        attacks: rounds arrays (n, d): the keys that were erased in each round.
    """

    maps: tuple[Params, ...]
    attacks: tuple[Float[Array, "n d"], ...]


def rece(
    maps: Params,
    erase: Any,
    anchors: Any,
    preserve: Any = None,
    *,
    rounds: int = 3,
    l2: float = 0.1,
    attack_l2: float = 0.1,
    erase_weight: float = 1.0,
    preserve_weight: float = 0.1,
    as_published: bool = False,
) -> Rece:
    """UCE, then rounds of the closed-form attack and its erasure.

    The Gram matrix is carried: each round adds its rows to those that stand and solves
    anew from W₀, so no round undoes another.

    Args:
        maps: W₀ of all K and V maps.
        erase: Keys (n, d).
        anchors: Keys (n, d) or (1, d).
        preserve: Keys (p, d); None: none but λ.
        rounds: Attacks; 0 is UCE.
        l2: λ of the edits; with the weights, as released inside of RECE.
        attack_l2: λ_r of :func:`adversarial_keys`; 0.1, and 1e-3 for styles and hard
            objects as released.
        erase_weight: Of each erased and each attacking row.
        preserve_weight: Of each preserved row.
        as_published: Reset the Gram matrix in each round, with the maps of the round
            before as prior and for the targets: earlier erasures are then undone.

    Raises:
        ValueError: as ``uce`` and :func:`adversarial_keys`; fewer rounds than 0.

    Cost: rounds + 1 edits and as many solves of d × d.
    Source: RECE, arXiv 2407.12383. Differs: the carried Gram matrix. Of its three
        regularisers the one of its scripts (zero) and "standard" (a pull to another
        embedding) are in :func:`adversarial_keys`; "surrogate" is not, whose first mode
        has no ridge and may be singular.
    """
    check_whole("rounds", rounds, least=0)
    weights: dict[str, Any] = {
        "erase_weight": erase_weight,
        "preserve_weight": preserve_weight,
    }
    rows = uce_rows(maps, erase, anchors, preserve, **weights)
    state = edit_add(edit_start(maps, l2=l2), rows)
    now = edit(maps, rows, l2=l2) if as_published else edited(state)
    found, attacks = [now], []
    for _ in range(rounds):
        attack = adversarial_keys(now, maps, erase, l2=attack_l2)
        if as_published:
            rows = uce_rows(now, attack, anchors, preserve, **weights)
            now = edit(now, rows, l2=l2)
        else:
            state = edit_add(state, anchor_rows(maps, attack, anchors, erase_weight))
            now = edited(state)
        found.append(now)
        attacks.append(attack)
    return Rece(tuple(found), tuple(attacks))


def adversarial_keys(
    maps: Params, original: Params, keys: Any, *, l2: float, towards: Any = None
) -> Float[Array, "n d"]:
    """The inputs that bring the original outputs back: argmin ‖c' W − c W₀‖² + λ‖c'‖².

    Over all maps together, c' (W Wᵀ + λ) = c W₀ Wᵀ, each key apart. An attack in closed
    form, also to judge other methods by.

    Args:
        maps: W, edited.
        original: W₀.
        keys: C, (n, d).
        l2: λ: the norm of the attack. Small ones find any embedding; large ones stay
            near 0, or near ``towards``.
        towards: (n, d) or (1, d): the pull is λ‖c' − towards‖²; None: to 0.

    Raises:
        ValueError: λ not positive, maps that are not like the original ones.

    Cost: d² K + d³/3.
    """
    matrix, before = stacked(maps), stacked(original)
    if matrix.shape != before.shape:
        raise ValueError(
            f"the edited maps are {matrix.shape}, the original ones {before.shape}; "
            f"expected the same maps before and after"
        )
    d, k = matrix.shape
    check_start(d, k, l2, matrix.dtype)
    keys = as_keys(keys, matrix)
    centre = jnp.zeros_like(keys)
    if towards is not None:
        centre = jnp.broadcast_to(as_keys(towards, matrix), keys.shape)
    square = exact_product(matrix, matrix.T) + l2 * jnp.eye(d, dtype=matrix.dtype)
    missing = outputs(original, keys) - exact_product(centre, matrix)
    right = exact_product(missing, matrix.T)
    return centre + jnp.linalg.solve(square, right.T).T
