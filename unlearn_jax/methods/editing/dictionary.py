"""Training of a top-k sparse autoencoder on activations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from unlearn_jax.loop import repeat
from unlearn_jax.methods.erasing.tune import tune
from unlearn_jax.models.sparse_autoencoder import (
    Dictionary,
    largest,
    responses,
    sparse_sum,
)
from unlearn_jax.options import checked
from unlearn_jax.types import Array, PRNGKey

_EPSILON = 6.25e-10
"""Of Adam, as released."""


class Loss(NamedTuple):
    """Value: of a dictionary on rows.

    Attributes:
        missed: Σ‖h − ĥ‖² as a share of Σ‖h − mean h‖².
        auxiliary: The same of h − ĥ by the dead features alone; 0 where none is dead.
        fired: (f,), on how many rows each feature is active.
    """

    missed: Float[Array, ""]
    auxiliary: Float[Array, ""]
    fired: Float[Array, " f"]


def dictionary_loss(
    dictionary: Dictionary, rows: Any, dead: Any, *, active: int, auxiliary: int
) -> Loss:
    """What a dictionary misses, and what its dead features could make up of it.

    The second term moves dead features alone: what is missed and b are held.

    Args:
        dictionary: Of f features.
        rows: h, (n, d).
        dead: (f,), whether a feature is.
        active: k.
        auxiliary: The most of the dead that are tried on a row.

    Raises:
        ValueError: more than there are features.
    """
    rows = jnp.asarray(rows)
    found, places = largest(responses(dictionary, rows), active)
    missed = rows - dictionary.center[None] - sparse_sum(dictionary, found, places)
    fired = jnp.zeros(len(dictionary.offset), rows.dtype).at[places].add(found > 0)
    left = jax.lax.stop_gradient(missed)
    held = dictionary._replace(center=jax.lax.stop_gradient(dictionary.center))
    asleep = jnp.where(dead[None], responses(held, rows), -jnp.inf)
    tried = sparse_sum(held, *largest(asleep, auxiliary))
    return Loss(
        _share(missed, rows),
        jnp.where(jnp.any(dead), _share(left - tried, left), 0),
        fired,
    )


def _share(missed: Array, of: Array) -> Array:
    square = jnp.sum(jnp.square(of - jnp.mean(of, axis=0, keepdims=True)))
    return jnp.sum(jnp.square(missed)) / jnp.where(square > 0, square, 1)


@checked(zero=("auxiliary",))
def learn_dictionary(
    key: PRNGKey,
    rows: Any,
    *,
    features: int = 1024,
    active: int = 8,
    auxiliary: int = 32,
    auxiliary_weight: float = 1 / 32,
    dead_after: int = 16_384,
    steps: int = 1500,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
) -> Dictionary:
    """A top-k sparse autoencoder of rows, by Adam.

    b begins at their geometric median, E at Dᵀ, and columns of D have length 1 after
    each step.

    Args:
        key: Draws D's directions, and the rows of each step.
        rows: h, (n, d).
        features: f.
        active: k.
        auxiliary: The most dead features that are tried on a row; 0: none.
        auxiliary_weight: Of what these miss.
        dead_after: Rows on which a feature was not active, for it to be dead.
        steps: Of Adam.
        batch_size: Rows of a step.
        learning_rate: Of Adam.

    Raises:
        ValueError: more active features than there are, or rows of another shape.

    Cost: steps × batch_size × f × d × 6 operations.
    Source: Gao et al., arXiv 2406.04093; ItD, arXiv 2503.09446 (524 288 features, k =
        64, 256 auxiliary ones of weight 1/32, rate 1e-4, 20 epochs). Differs: lengths
        are set after a step, as published before it, where the last step undoes them;
        b is held in the auxiliary term.
    """
    rows = jnp.asarray(rows)
    if rows.ndim != 2 or not len(rows) or max(active, auxiliary) > features:
        raise ValueError(
            f"got rows {rows.shape}, {active} active and {auxiliary} auxiliary of "
            f"{features} features; expected rows (n, d) and no more than there are: "
            "ask for fewer, or for more features"
        )
    first, key = jax.random.split(key)
    drawn = jax.random.normal(first, (features, rows.shape[1]), rows.dtype)
    decoder = _unit(drawn)
    silent = jnp.zeros(features, rows.dtype)
    start = Dictionary(decoder, decoder, geometric_median(rows), silent)

    def slope(key: Any, state: Any, rows: Any) -> Any:
        dictionary, silent = state
        some = rows[jax.random.randint(key, (batch_size,), 0, len(rows))]

        def loss(dictionary: Dictionary) -> Any:
            tried = {"active": active, "auxiliary": max(auxiliary, 1)}
            dead = (silent >= dead_after) & (auxiliary > 0)
            told = dictionary_loss(dictionary, some, dead, **tried)
            return told.missed + auxiliary_weight * told.auxiliary, told.fired

        return jax.grad(loss, has_aux=True)(dictionary)

    state = start, silent
    moved = tune(
        key,
        state,
        slope,
        rows,
        moves=jax.tree.map(lambda _: True, state),
        steps=steps,
        learning_rate=learning_rate,
        rule=unit_columns(learning_rate, batch_size),
    )
    return moved[0]


def unit_columns(learning_rate: float, batch_size: int) -> optax.GradientTransformation:
    """Adam of a dictionary, then columns of D at length 1; and of each feature's rest.

    Its state is a dictionary and, for each feature, on how many rows it was not active
    since it was; the second gradient is on how many of a batch it is.
    """
    adam = optax.adam(learning_rate, eps=_EPSILON)

    def init(params: Any) -> Any:
        return adam.init(params[0])

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        (slope, fired), (dictionary, silent) = updates, params
        steps, state = adam.update(slope, state, dictionary)
        moved: Any = optax.apply_updates(dictionary, steps)
        moved = moved._replace(decoder=_unit(moved.decoder))
        rest = jnp.where(fired > 0, -silent, batch_size)
        return (jax.tree.map(jnp.subtract, moved, dictionary), rest), state

    return optax.GradientTransformation(init, update)


def geometric_median(rows: Any, *, steps: int = 100) -> Array:
    """The point with the least sum of distances to rows (n, d): Weiszfeld's steps."""
    rows = jnp.asarray(rows)
    least = jnp.finfo(rows.dtype).eps * jnp.sqrt(jnp.mean(jnp.square(rows)))

    def step(i: Any, point: Array, rows: Any) -> Array:
        del i
        far = jnp.linalg.norm(rows - point[None], axis=1)
        weights = 1 / jnp.maximum(far, jnp.where(least > 0, least, 1))
        return weights @ rows / jnp.sum(weights)

    return repeat(steps, step, jnp.mean(rows, axis=0), rows)


def _unit(columns: Array) -> Array:
    return columns / jnp.linalg.norm(columns, axis=1, keepdims=True)
