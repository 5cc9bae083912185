"""Going on with a text: greedy or drawn, token by token, on kept keys and values."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from unlearn_jax.models.model import Decoding, Model
from unlearn_jax.types import Array, PRNGKey, Variables


class Sampling(NamedTuple):
    """Description: how the next token is chosen from its logits.

    Attributes:
        temperature: The logits are divided by it; 0 takes the most likely token.
        top_k: Only so many of the most likely tokens are drawn from; 0: all.
        top_p: Only the most likely tokens that together have this probability, at
            ``temperature``; 1: all.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


GREEDY = Sampling()


def generate(
    key: PRNGKey,
    model: Model,
    variables: Variables,
    prompts: Int[Array, "n t"],
    *,
    steps: int,
    end: int = -1,
    sampling: Sampling = GREEDY,
) -> Int[Array, "n steps"]:
    """The tokens that a model goes on with after each prompt.

    Args:
        key: For drawing; greedy choice does not read it.
        model: With ``decoding``, such as a transformer.
        variables: Of the model.
        prompts: Padding below zero may stand before or after a prompt, not within.
        steps: The most tokens for each prompt.
        end: The token after which a text is finished; -1: none.
        sampling: How tokens are chosen.

    Returns:
        (n, steps): the new tokens, the end among them; below zero after the end.

    Raises:
        ValueError: a model that keeps nothing, more tokens than the context has, or
            sampling out of range.

    Cost: one forward pass over the prompts, then one over a single token for each step
        until all texts have ended; memory: keys and values of t + steps positions. A
        text's tokens do not depend on the others beside it, except through ``key``.
    """
    decoding = _decoding(model, prompts.shape[1] + steps)
    _check(sampling, steps)
    if decoding.settled is not None:
        decoding, variables = decoding.settled(variables)
    rows, length = prompts.shape
    cache = decoding.empty(rows, length + steps)
    outputs, cache = decoding.extend(variables, cache, _to_the_right(prompts))
    blank = jnp.full((rows, steps), -1, prompts.dtype)

    def choose(at: Any, logits: Array, done: Array) -> tuple[Array, Array]:
        drawn = _choose(jax.random.fold_in(key, at), logits, sampling)
        drawn = jnp.where(done, -1, drawn.astype(prompts.dtype))
        return drawn, done | (drawn == end)

    def unfinished(carry: Any) -> Array:
        at, _, done, _, _ = carry
        return (at < steps) & ~jnp.all(done)

    def step(carry: Any) -> Any:
        at, last, done, texts, cache = carry
        outputs, cache = decoding.extend(variables, cache, last[:, None])
        last, done = choose(at, outputs[:, 0], done)
        return at + 1, last, done, texts.at[:, at].set(last), cache

    last, done = choose(0, outputs[:, -1], jnp.zeros(rows, bool))
    texts = blank.at[:, 0].set(last)
    start = (jnp.asarray(1), last, done, texts, cache)
    return jax.lax.while_loop(unfinished, step, start)[3]


def filtered(logits: Float[Array, "n k"], sampling: Sampling) -> Float[Array, "n k"]:
    """Logits at the temperature, -inf for tokens that are not drawn from."""
    logits = logits / sampling.temperature
    ranked = jnp.sort(logits, axis=-1)[:, ::-1]
    if sampling.top_k:
        least = ranked[:, min(sampling.top_k, logits.shape[-1]) - 1]
        logits = jnp.where(logits < least[:, None], -jnp.inf, logits)
        ranked = jnp.where(ranked < least[:, None], -jnp.inf, ranked)
    if sampling.top_p < 1:
        shares = jax.nn.softmax(ranked, axis=-1)
        before = jnp.cumsum(shares, axis=-1) - shares
        kept = jnp.where(before < sampling.top_p, ranked, jnp.inf)
        logits = jnp.where(logits < jnp.min(kept, axis=-1)[:, None], -jnp.inf, logits)
    return logits


def _choose(key: PRNGKey, logits: Array, sampling: Sampling) -> Array:
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1)
    return jax.random.categorical(key, filtered(logits, sampling), axis=-1)


def _to_the_right(prompts: Array) -> Array:
    """Each row turned until it ends with its last token."""
    length = prompts.shape[1]
    places = jnp.arange(length)
    last = jnp.max(jnp.where(prompts >= 0, places[None, :], -1), axis=1)
    turned = (places[None, :] + last[:, None] + 1) % length
    return jnp.take_along_axis(prompts, turned, axis=1)


def _decoding(model: Model, length: int) -> Decoding:
    if model.decoding is None:
        raise ValueError(
            "the model has no decoding, expected one of sequences such as the "
            "transformer; give Model.decoding the functions that go on with a text"
        )
    if length > model.decoding.context:
        raise ValueError(
            f"prompts and new tokens make {length} positions and the context is "
            f"{model.decoding.context}; shorten them, or build the model with a longer "
            f"context"
        )
    return model.decoding


def _check(sampling: Sampling, steps: int) -> None:
    fits = sampling.temperature >= 0 and sampling.top_k >= 0 and 0 < sampling.top_p <= 1
    if not fits or steps < 1:
        raise ValueError(
            f"got {sampling} and {steps} steps; expected a temperature and top_k of at "
            f"least 0, top_p above 0 and at most 1, and at least 1 step"
        )
