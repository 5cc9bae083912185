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

    Cost: a gradient of both losses a step, twice in each ``every``-th.
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
        first, second = jax.random.split(jax.random.fold_in(key, i))

        def learns(own: Params) -> Any:
            now = seen(own, jax.lax.stop_gradient(masks), home)
            both = [loss(first, now, constants) for loss in (target, innocent)]
            return sum(both) / 2

        update, memory = user.update(jax.grad(learns)(own), memory, own)
        frozen = groups.spread(jax.nn.sigmoid(masks / temperature))
        update = jax.tree.map(lambda m, u: (1 - m) * u, frozen, update)
        own = optax.apply_updates(own, update)

        def guards(masks: Array) -> Any:
            now = seen(own, masks, home)
            away = innocent(second, now, constants) - target(second, now, constants)
            mean = jnp.mean(jax.nn.sigmoid(masks / temperature))
            return away / 2 + hold * (share - mean) ** 2

        def moved(state: Any) -> Any:
            masks, memory = state
            update, memory = publisher.update(jax.grad(guards)(masks), memory, masks)
            return optax.apply_updates(masks, update), memory

        turn = (i + 1) % every == 0
        still = masks, mask_memory
        return (own, memory), jax.lax.cond(turn, moved, lambda s: s, still)

    masks = jnp.zeros(len(groups.names), jax.tree.leaves(params)[0].dtype)
    state = (params, user.init(params)), (masks, publisher.init(masks))
    _, (masks, _) = repeat(steps, step, state, (key, params, constants))
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
