"""Attacks on prompts: words before a prompt, and words that no vocabulary has.

The denoiser is its own classifier: a prompt that explains the noise in pictures of a
concept is one that names it. So both attacks minimise the diffusion loss of pictures
that the original drew, over what stands before the prompt; parameters stay.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from unlearn_jax.diffusion.schedule import Schedule, shares
from unlearn_jax.loop import scan
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.types import Array, PRNGKey, Variables
from unlearn_kernels.precision import exact_product

EMBEDDING = ("text", "tokens", "embedding")
"""Where a denoiser's parameters have its words, (vocabulary, d)."""


class Found(NamedTuple):
    """Value: what an attack came by, round after round.

    Attributes:
        words: (rounds, n, slots): tokens before each prompt; of :func:`invert_words`
            their embeddings, (rounds, n, slots, d).
        losses: (rounds, n): mean diffusion loss a pixel over each round.
    """

    words: Any
    losses: Float[Array, "rounds n"]


def embeddings(variables: Variables) -> Float[Array, "v d"]:
    """The words of a denoiser's text encoder.

    Raises:
        ValueError: it has none where :data:`EMBEDDING` says.
    """
    found: Any = variables.params
    for name in EMBEDDING:
        if name not in found:
            raise ValueError(
                f"the model has no parameter {'/'.join(EMBEDDING)}, expected a "
                "denoiser with a text encoder of words: see diffusion_transformer"
            )
        found = found[name]
    return found


def with_words(variables: Variables, words: Float[Array, "m d"]) -> Variables:
    """The vocabulary and m words more, whose tokens follow those that are there."""
    table = embeddings(variables)
    text = {**variables.params["text"]}
    text["tokens"] = {
        **text["tokens"],
        "embedding": jnp.concatenate([table, jnp.asarray(words, table.dtype)]),
    }
    return variables._replace(params={**variables.params, "text": text})


def prefixed(
    tokens: Int[Array | np.ndarray, "n t"],
    words: Int[Array | np.ndarray, "n slots"],
    *,
    end: int = 0,
) -> Int[np.ndarray, "n t"]:
    """Prompts behind words, as long as they were: ends are pushed out, words are not.

    Args:
        tokens: Prompts, padded with ends.
        words: What is put before each.
        end: The token that ends a prompt.

    Raises:
        ValueError: a prompt has no room for that many words.
    """
    tokens, words = np.asarray(tokens), np.asarray(words)
    slots = words.shape[1]
    if np.any(tokens[:, tokens.shape[1] - slots :] != end):
        raise ValueError(
            f"a prompt of {tokens.shape[1]} tokens has no room for {slots} more, "
            "expected as many ends as words are put before it: take fewer slots"
        )
    kept = tokens[:, : tokens.shape[1] - slots]
    return np.concatenate([words, kept], axis=1).astype(np.int32)


def onto_simplex(values: Float[Array, "*n v"]) -> Float[Array, "*n v"]:
    """The nearest probabilities: u = max(v − τ, 0) with τ such that they add up to 1.

    Cost: one sort. Source: Held, Wolfe and Crowder 1974. (UnlearnDiffAtk bisects.)
    """
    falling = -jnp.sort(-values, axis=-1)
    size = values.shape[-1]
    counts = jnp.arange(1, size + 1, dtype=values.dtype)
    counts = counts.reshape((1,) * (values.ndim - 1) + (size,))
    bounds = (jnp.cumsum(falling, axis=-1) - 1) / counts
    last = jnp.sum((falling > bounds).astype(jnp.int32), axis=-1, keepdims=True) - 1
    return jnp.maximum(values - jnp.take_along_axis(bounds, last, axis=-1), 0)


def search_prefix(
    key: PRNGKey,
    denoiser: Denoiser,
    variables: Variables,
    schedule: Schedule,
    images: Float[Array | np.ndarray, "n h w c"],
    tokens: Int[Array | np.ndarray, "n t"],
    *,
    slots: int = 1,
    rounds: int = 10,
    steps: int = 20,
    learning_rate: float = 0.1,
    weight_decay: float = 0.1,
) -> Found:
    """Words before each prompt by which the model tells the noise in its picture best.

    Probabilities of all words in each slot begin alike; a step draws words from them,
    takes the gradient at these (straight through, bounded by 1), an AdamW step and the
    projection onto the simplex. Times are visited one after another, evenly spaced.
    After each time the likeliest words are told.

    Args:
        key: Draws words and noise.
        denoiser: The model.
        variables: After forgetting; frozen.
        schedule: Of its training.
        images: What the original draws for each prompt.
        tokens: The prompts, with as many ends at their end as ``slots``.
        slots: Words before a prompt.
        rounds: Times, so candidates of each prompt.
        steps: At each time; 40 as released.
        learning_rate: 0.01 as released.
        weight_decay: 0.1 as released.

    Returns:
        Candidates in the order that they were found in.

    Raises:
        ValueError: a prompt without room, no slot.

    Cost: rounds × steps gradients of n examples.
    Source: UnlearnDiffAtk, arXiv 2310.11868. Differs: noise of a seed; all prompts at
        once; the projection is exact; and the step is ten times as long, since a
        vocabulary of tens of words begins at probabilities that are so much larger.
    """
    check_whole("slots", slots)
    vocabulary = embeddings(variables).shape[0]
    first = jnp.full((len(tokens), slots, vocabulary), 1 / vocabulary)
    optimiser = optax.adamw(learning_rate, weight_decay=weight_decay)

    def embedded(values: Array, key: Array) -> Array:
        drawn = jax.random.categorical(key, jnp.log(jnp.maximum(values, 1e-30)))
        hard = jax.nn.one_hot(drawn, vocabulary, dtype=values.dtype)
        through = values + jax.lax.stop_gradient(hard - values)
        return exact_product(through, embeddings(variables))

    run = _descent(
        denoiser, variables, schedule, images, tokens, slots, rounds, steps, optimiser
    )
    values, losses = run(
        key,
        first,
        embedded,
        lambda gradient: jnp.clip(gradient, -1, 1),
        onto_simplex,
        one_after_another=True,
    )
    return Found(jnp.argmax(values, axis=-1).astype(jnp.int32), losses)


def invert_words(
    key: PRNGKey,
    denoiser: Denoiser,
    variables: Variables,
    schedule: Schedule,
    images: Float[Array | np.ndarray, "n h w c"],
    tokens: Int[Array | np.ndarray, "n t"],
    *,
    slots: int = 1,
    rounds: int = 10,
    steps: int = 20,
    learning_rate: float = 0.05,
) -> Found:
    """New words before each prompt that explain its picture: free embeddings.

    They begin at the mean of all words, and each step draws times and noise anew.

    Args:
        key: Draws them.
        denoiser: The model.
        variables: After forgetting; frozen.
        schedule: Of its training.
        images: What the original draws for each prompt.
        tokens: The prompts, with room as for :func:`search_prefix`.
        slots: New words before each.
        rounds: How often the words are told.
        steps: Between.
        learning_rate: Of Adam.

    Raises:
        ValueError: as :func:`search_prefix`.

    Cost: rounds × steps gradients of n examples.
    Source: Gal et al., An Image Is Worth One Word, arXiv 2208.01618, as an attack:
        Pham et al., Circumventing Concept Erasure Methods, arXiv 2308.01508. Differs:
        one picture a word; the prompt stays behind it.
    """
    check_whole("slots", slots)
    check_number("learning_rate", learning_rate, positive=True)
    table = embeddings(variables)
    shape = (len(tokens), slots, table.shape[1])
    first = jnp.broadcast_to(jnp.mean(table, axis=0)[None, None], shape)
    run = _descent(
        denoiser,
        variables,
        schedule,
        images,
        tokens,
        slots,
        rounds,
        steps,
        optax.adam(learning_rate),
    )
    same: Any = lambda values, key=None: values  # noqa: E731
    words, losses = run(key, first, same, same, same, one_after_another=False)
    return Found(words, losses)


def _descent(
    denoiser: Denoiser,
    variables: Variables,
    schedule: Schedule,
    images: Any,
    tokens: Any,
    slots: int,
    rounds: int,
    steps: int,
    optimiser: optax.GradientTransformation,
) -> Callable[..., tuple[Array, Array]]:
    """Descent on the loss of pictures over what stands before their prompts."""
    check_whole("rounds", rounds)
    check_whole("steps", steps)
    images, count = jnp.asarray(images), len(tokens)
    vocabulary = embeddings(variables).shape[0]
    new = vocabulary + np.arange(count * slots).reshape(count, slots)
    prompts = jnp.asarray(prefixed(tokens, new))
    evenly = np.round(np.linspace(schedule.steps, 1, rounds)).astype(np.int32)

    def loss(rows: Array, times: Array, noise: Array) -> tuple[Array, Array]:
        told = with_words(variables, rows.reshape(count * slots, -1))
        text = denoiser.encode(told, prompts)
        kept, lost = shares(schedule, times)
        seen = kept * images + lost * noise
        gap = denoiser.denoise(variables, seen, times, text) - noise.reshape(count, -1)
        losses = jnp.mean(gap**2, axis=1)
        return jnp.sum(losses), losses

    def run(
        key: Any,
        first: Array,
        embedded: Any,
        bounded: Any,
        allowed: Any,
        *,
        one_after_another: bool,
    ) -> tuple[Array, Array]:
        def step(carry: Any, pair: Any) -> tuple[Any, Array]:
            (values, state), (time, key) = carry, pair
            noise_key, word_key, time_key = jax.random.split(key, 3)
            noise = jax.random.normal(noise_key, images.shape, images.dtype)
            times = jnp.full(count, time)
            if not one_after_another:
                times = jax.random.randint(time_key, (count,), 1, schedule.steps + 1)

            def of(values: Array) -> tuple[Array, Array]:
                return loss(embedded(values, word_key), times, noise)

            gradient, losses = jax.grad(of, has_aux=True)(values)
            move, state = optimiser.update(bounded(gradient), state, values)
            return (allowed(optax.apply_updates(values, move)), state), losses

        def around(carry: Any, pair: Any) -> tuple[Any, Any]:
            time, key = pair
            keys = jax.random.split(key, steps)
            carry, losses = scan(step, carry, (jnp.full(steps, time), keys), images)
            return carry, (carry[0], jnp.mean(losses, axis=0))

        carry = (first, optimiser.init(first))
        pairs = (jnp.asarray(evenly), jax.random.split(key, rounds))
        return scan(around, carry, pairs, images)[1]

    return run
