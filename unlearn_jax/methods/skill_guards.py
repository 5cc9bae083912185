"""Guards at inference: what is asked about is recognised, and no weight has moved.

Neuron Adjust moves gates from the forget set's distribution to the retain set's; Key
Space Detection refuses where a prompt's key lies in the box of the forgotten ones.
They are no methods of ``METHODS``: the knowledge is still in the weights, who has them
has it, and relearning starts from the original. Report them as guards.

Cost: no gradient. To fit, a forward pass over the prompts and what it left at one
layer, n × d numbers; to guard, one such pass for each prompt, or a draw for each gate.

Source: Li, Sun, Weng 2025, arXiv 2503.21730. Differs, where the released code has slips
that its text has not: deviations are deviations (there the forget set's is its mean,
and both are variances), every neuron and token draws for itself (there one draw for a
call), and every example of a batch is looked at (there the first).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from unlearn_jax.options import check_number, check_whole
from unlearn_jax.types import Array, PRNGKey, Scalar


class KeySpace(NamedTuple):
    """Value: a box of keys, centre ± reach · deviation."""

    centre: Float[Array, " d"]
    deviation: Float[Array, " d"]
    reach: Scalar


def key_space(keys: Float[Array, "n d"]) -> KeySpace:
    """The smallest such box that holds all keys.

    Its reach is the largest standardised distance, in closed form (the released code
    bisects). Dimensions in which all keys agree hold nothing but that value.

    Args:
        keys: Inputs of a ``down`` kernel at the last token of each forgotten prompt,
            see ``curvature.layer_inputs``.

    Raises:
        ValueError: no prompt.
    """
    check_whole("key_space: forgotten prompts", len(keys))
    centre, deviation = keys.mean(0), keys.std(0)
    away = jnp.abs(keys - centre[None])
    apart = away / jnp.where(deviation > 0, deviation, 1)[None]
    return KeySpace(centre, deviation, jnp.max(apart))


def inside(
    space: KeySpace, keys: Float[Array, "n d"], *, alpha: float = 1.0
) -> Bool[Array, " n"]:
    """Whether all of a key lies in the box, scaled by alpha.

    Args:
        space: Of the forget set.
        keys: Of prompts.
        alpha: 1 refuses every forgotten prompt that the box was made from. The paper's
            are 0.06 to 2, chosen for each task: more than a hyper-parameter.

    Raises:
        ValueError: alpha is not positive.
    """
    check_number("inside: alpha", alpha, positive=True)
    away = jnp.abs(keys - space.centre[None])
    room = alpha * space.reach * space.deviation
    # One rounding of the largest distance must not put its own key outside.
    slack = 4 * jnp.finfo(keys.dtype).eps * (jnp.abs(space.centre) + room)
    return jnp.all(away <= (room + slack)[None], axis=1)


def with_refusals(
    answers: Array, found: Bool[Array, " n"], refusal: Sequence[int]
) -> Array:
    """Answers (n, steps) with the refusal where a guard was raised, -1 behind it.

    Raises:
        ValueError: a refusal longer than the answers.
    """
    length = answers.shape[1]
    if len(refusal) > length:
        raise ValueError(
            f"the refusal has {len(refusal)} tokens and answers have {length}: shorten "
            "it, or generate more steps"
        )
    row = jnp.full(length, -1, answers.dtype)
    row = row.at[: len(refusal)].set(jnp.asarray(refusal, answers.dtype))
    return jnp.where(found[:, None], row[None], answers)


class Adjustment(NamedTuple):
    """Value: which neurons are adjusted, and how they are distributed in either set."""

    chosen: Bool[Array, " d"]
    forget_mean: Float[Array, " d"]
    forget_deviation: Float[Array, " d"]
    retain_mean: Float[Array, " d"]
    retain_deviation: Float[Array, " d"]


def adjustment(
    forget: Float[Array, "n d"], retain: Float[Array, "m d"], *, share: float = 0.005
) -> Adjustment:
    """The neurons whose gate is raised most by the forget set.

    Args:
        forget: Gates before their SiLU at the forget set's tokens.
        retain: At the retain set's.
        share: Of the neurons, those with the largest mean difference, signed as in the
            paper: what the forget set lowers is left alone.

    Raises:
        ValueError: no token of either set, or a share that is not positive.
    """
    check_number("adjustment: share", share, positive=True)
    check_whole("adjustment: forgotten tokens", len(forget))
    check_whole("adjustment: retained tokens", len(retain))
    raised = forget.mean(0) - retain.mean(0)
    count = max(1, min(len(raised), round(share * len(raised))))
    _, most = jax.lax.top_k(raised, count)
    chosen = jnp.zeros(len(raised), bool).at[most].set(True)
    return Adjustment(
        chosen, forget.mean(0), forget.std(0), retain.mean(0), retain.std(0)
    )


def adjusted(key: PRNGKey, values: Array, known: Adjustment) -> Array:
    """Gates (…, d): chosen ones that look forgotten, mapped and reflected.

    Where the forget set's density p_f at v is at least the retain set's p_r, with
    probability p_f / (p_f + p_r) v becomes μ_r - σ_r (v - μ_f) / σ_f. As the function
    behind the gates of ``models.gated`` it makes a guarded model.
    """
    wide = jax.tree.map(lambda x: x.reshape((1,) * (values.ndim - 1) + (-1,)), known)
    least = jnp.finfo(values.dtype).tiny
    deviations = [
        jnp.maximum(one, least)
        for one in (wide.forget_deviation, wide.retain_deviation)
    ]
    own = jax.scipy.stats.norm.logpdf(values, wide.forget_mean, deviations[0])
    other = jax.scipy.stats.norm.logpdf(values, wide.retain_mean, deviations[1])
    drawn = jax.random.uniform(key, values.shape, values.dtype)
    moves = (own >= other) & (drawn < jax.nn.sigmoid(own - other))
    mapped = (
        wide.retain_mean - deviations[1] * (values - wide.forget_mean) / deviations[0]
    )
    return jnp.where(moves & wide.chosen, mapped, values)


def last_keys(keys: Float[Array, "n t d"], tokens: Any) -> Float[Array, "n d"]:
    """Keys at the last token of each prompt; negative tokens behind it are padding."""
    places = jnp.arange(keys.shape[1], dtype=jnp.int32)
    last = jnp.max(jnp.where(jnp.asarray(tokens) >= 0, places[None], 0), axis=1)
    return jnp.take_along_axis(keys, last[:, None, None], axis=1)[:, 0]
