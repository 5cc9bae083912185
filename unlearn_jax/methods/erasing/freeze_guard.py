"""FreezeAsGuard: what a publisher freezes, so that users cannot learn a thing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float

from unlearn_jax.loop import repeat
from unlearn_jax.methods.erasing.layer_masks import Groups
from unlearn_jax.methods.erasing.tune import Loss
from unlearn_jax.options import check_number, check_whole, checked
from unlearn_jax.types import Array, Params, PRNGKey


@checked()
def freeze_as_guard(
    key: PRNGKey,
    params: Params,
    target: Loss,
    innocent: Loss,
    constants: Any,
    groups: Groups,
    *,
    share: float = 0.5,
    hold: float = 1.0,
    temperature: float = 0.2,
    steps: int = 300,
    every: int = 5,
    user_rate: float = 1e-3,
    mask_rate: float = 0.1,
) -> Float[Array, " k"]:
    """How much each group should be frozen, from 0 to 1, by simulating the user.

    A user tunes θ on both kinds of images; what the publisher sees is θ + m (θ* − θ).
    The user's step goes down the mean loss, times 1 − m; the publisher's goes down
    (loss of innocent images − loss of the target's) / 2 + ``hold`` (share − mean m)²
    in the masks, with θ where it is.

    Args:
        key: Split for each step.
        params: θ*, before anybody tunes it.
        target: Loss of what should not be learnt, ``(key, params, constants)``.
        innocent: Loss of what should.
        constants: Arrays that both read.
        groups: Of the parameters.
        share: ρ, of groups to be frozen.
        hold: Of that share.
        temperature: T of m = σ(x / T).
        steps: Of the user.
        every: The publisher moves in each so-manieth.
        user_rate: Of the user's Adam.
        mask_rate: Of the publisher's.

    Raises:
        ValueError: no steps, a share outside of 0 to 1.

    Cost: a gradient of both losses a step, twice in each ``every``-th; compiled once.
    Source: arXiv 2405.17472 and its code. Differs: groups, not single tensors; both
        moves are Adam's and ``hold`` is of its scale (released: descent of rate 10
        under a weight of 5,000); all masks begin at ½ (released: x from 0 to 1).
    """
    check_number("freeze_as_guard: temperature", temperature, positive=True)
    if share > 1:
        raise ValueError(f"share is {share}, expected at most 1")
    user, publisher = optax.adam(user_rate), optax.adam(mask_rate)

    def seen(own: Params, masks: Array, home: Params) -> Params:
        frozen = groups.spread(jax.nn.sigmoid(masks / temperature))
        return jax.tree.map(lambda m, a, b: a + m * (b - a), frozen, own, home)

    def step(i: Any, state: Any, given: Any) -> Any:
        key, home, constants = given
        (own, memory), (masks, mask_memory) = state
        cycle, place = i // (every + 1), i % (every + 1)
        guards = place == every
        own_step = cycle * every + jnp.minimum(place, every - 1)
        keys = jax.random.split(jax.random.fold_in(key, own_step))
        drawn = keys[guards.astype(int)]
        sign = jnp.where(guards, -1.0, 1.0).astype(masks.dtype)

        def cost(own: Params, masks: Array) -> Any:
            now = seen(own, masks, home)
            away = innocent(drawn, now, constants) + sign * target(
                drawn, now, constants
            )
            mean = jnp.mean(jax.nn.sigmoid(masks / temperature))
            return away / 2 + hold * (share - mean) ** 2

        # One gradient in both for either turn: two would be compiled twice as long.
        own_slope, mask_slope = jax.grad(cost, argnums=(0, 1))(own, masks)

        def learnt() -> Any:
            update, after = user.update(own_slope, memory, own)
            frozen = groups.spread(jax.nn.sigmoid(masks / temperature))
            update = jax.tree.map(lambda m, u: (1 - m) * u, frozen, update)
            return (optax.apply_updates(own, update), after), (masks, mask_memory)

        def guarded() -> Any:
            update, after = publisher.update(mask_slope, mask_memory, masks)
            return (own, memory), (optax.apply_updates(masks, update), after)

        return jax.lax.cond(guards, guarded, learnt)

    masks = jnp.zeros(len(groups.names), jax.tree.leaves(params)[0].dtype)
    state = (params, user.init(params)), (masks, publisher.init(masks))
    turns = steps + steps // every
    _, (masks, _) = repeat(turns, step, state, (key, params, constants))
    return jax.nn.sigmoid(masks / temperature)


def rounded(soft: Float[Any, " k"], count: int) -> Bool[np.ndarray, " k"]:
    """The ``count`` groups that are frozen most, as a mask of what is frozen.

    Raises:
        ValueError: more than there are.
    """
    soft = np.asarray(soft)
    check_whole("count", count, least=0)
    if count > len(soft):
        raise ValueError(f"got {count} of {len(soft)} groups, expected at most all")
    mask = np.zeros(len(soft), bool)
    mask[np.argsort(-soft, kind="stable")[:count]] = True
    return mask
