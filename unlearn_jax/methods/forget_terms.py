"""What is minimised on the forget set: one number per example, from outputs alone.

Every term is written for sequences; a class is a sequence of one token. Here s is the
negative log-likelihood of the whole answer [nats], u the same per token, p the
probability of a token, and a zero marks the original model. Losses that only lower a
likelihood have an indefinite Hessian and no least value of their own; ``undial``,
``ce_u`` and ``refusal`` are cross-entropies with a fixed distribution, convex in the
logits.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from unlearn_jax.train.asked import Asked
from unlearn_jax.types import PerExample

REDUCTIONS = ("sum", "token_mean")
Memory: TypeAlias = Literal["nothing", "likelihood", "outputs"]


class Seen(NamedTuple):
    """Value: what a term reads of a step's examples.

    Attributes:
        now: Outputs of the model beside the answers to forget.
        before: What the original said of them, see ``Term.remembers``; None for
            nothing.
        other: As ``now`` for the other answers; None where the term takes none.
        other_before: As ``before`` for them.
    """

    now: Asked
    before: Any
    other: Asked | None
    other_before: Any


class Term(NamedTuple):
    """Description: a loss on the forget set.

    Attributes:
        loss: ``Seen -> one value per example``.
        remembers: What of the original it reads: "nothing", "likelihood" (s of each
            example, a number) or "outputs" (all logits of the forget set are held).
        other: Whether it takes other answers, see :mod:`unlearn_jax.data.answers`.
    """

    loss: Callable[[Seen], PerExample]
    remembers: Memory = "nothing"
    other: bool = False


def ascent() -> Term:
    """-u, gradient ascent."""
    return Term(lambda seen: -_mean_nll(seen.now))


def npo(beta: float, reduction: str = "sum") -> Term:
    """(2/β) softplus(-β (s - s₀)): ascent that ends where an answer is unlikely."""
    nll = _nll(reduction)

    def loss(seen: Seen) -> PerExample:
        before = seen.before / _scale(seen.now, reduction)
        return _preference(beta, nll(seen.now) - before)

    return Term(loss, "likelihood")


def simnpo(beta: float, margin: float) -> Term:
    """(2/β) softplus(-β (u - margin)): per token, and without the original."""
    return Term(lambda seen: _preference(beta, _mean_nll(seen.now) - margin))


def dpo(beta: float, reduction: str = "sum") -> Term:
    """(2/β) softplus(-β ((s - s₀) - (s' - s'₀))), s' of the other answer."""
    nll = _nll(reduction)

    def loss(seen: Seen) -> PerExample:
        other = _other(seen)
        worse = nll(seen.now) - seen.before / _scale(seen.now, reduction)
        better = nll(other) - seen.other_before / _scale(other, reduction)
        return _preference(beta, worse - better)

    return Term(loss, "likelihood", other=True)


def refusal() -> Term:
    """u', cross-entropy of the other answer."""
    return Term(lambda seen: _mean_nll(_other(seen)), other=True)


def mismatch(ascent_weight: float, other_weight: float) -> Term:
    """-a u + b u': away from the true answer, towards another one."""

    def loss(seen: Seen) -> PerExample:
        away = -ascent_weight * _mean_nll(seen.now)
        return away + other_weight * _mean_nll(_other(seen))

    return Term(loss, other=True)


def undial(strength: float) -> Term:
    """Cross-entropy with softmax(z₀ - strength · onehot of the label), per token."""

    def loss(seen: Seen) -> PerExample:
        labels = jax.nn.one_hot(seen.now.tokens, seen.now.outputs.shape[-1])
        lowered = seen.before - strength * labels.astype(seen.before.dtype)
        return _soft(seen.now, jax.nn.softmax(lowered, axis=-1))

    return Term(loss, "outputs")


def ce_u() -> Term:
    """Cross-entropy with the model's own distribution without the label, held fixed."""

    def loss(seen: Seen) -> PerExample:
        labels = jnp.arange(seen.now.outputs.shape[-1])[None, None]
        without = jnp.where(
            labels == seen.now.tokens[..., None], -jnp.inf, seen.now.outputs
        )
        target = jax.lax.stop_gradient(jax.nn.softmax(without, axis=-1))
        return _soft(seen.now, target)

    return Term(loss)


def weighted_ascent(power: float, doubt: float) -> Term:
    """Mean of p^power (1 - p)^doubt log p, the weights held fixed.

    Power 0 and doubt 0 are ascent; doubt 0 is WGA; both positive are SatImp.
    """

    def loss(seen: Seen) -> PerExample:
        logp = seen.now.log_likelihoods
        p = jax.lax.stop_gradient(jnp.exp(logp))
        # Where nothing is asked for p is 1, and its slope must not be looked for.
        weight = p**power * (jnp.maximum(1 - p, 0) ** doubt if doubt else 1.0)
        return seen.now.mean(jax.lax.stop_gradient(weight) * logp)

    return Term(loss)


Divergence: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any]]
DIVERGENCES: Mapping[str, Divergence] = {
    "total_variation": (lambda p: jnp.tanh(p) / 2, lambda p: jnp.tanh(p) / 2),
    "kl": (lambda p: p, lambda p: jnp.exp(p - 1)),
    "pearson": (lambda p: p, lambda p: p**2 / 4 + p),
    "jeffrey": (lambda p: p, lambda p: p + p**2 / 4 + p**3 / 16),
    "jensen_shannon": (
        lambda p: -jax.nn.softplus(-p),
        lambda p: p + jax.nn.softplus(-p),
    ),
}
"""Name -> (g, f*∘g): the loss is -g(P') + f*(g(P)), P' of the other answer."""
AS_PUBLISHED: Mapping[str, Divergence] = {
    "reverse_kl": (lambda p: -jnp.exp(p), lambda p: -1 - p),
    "hellinger": (lambda p: 1 - jnp.exp(p), lambda p: (1 - jnp.exp(p)) / jnp.exp(p)),
    "neyman": (
        lambda p: 1 - jnp.exp(p),
        lambda p: 2 - 2 * jnp.sqrt(jnp.maximum(1 - p, 1e-12)),
    ),
}
"""The same as released, of the wrong sign: they raise what should be forgotten, or
(neyman) lower what should be said instead."""


def flat(divergence: str) -> Term:
    """-g(P') + f*(g(P)), P the mean probability of the tokens of an answer."""
    reward, price = {**DIVERGENCES, **AS_PUBLISHED}[divergence]

    def loss(seen: Seen) -> PerExample:
        other = _other(seen)
        said = other.mean(jnp.exp(other.log_likelihoods))
        kept = seen.now.mean(jnp.exp(seen.now.log_likelihoods))
        return price(kept) - reward(said)

    return Term(loss, other=True)


def _preference(beta: float, gap: Any) -> Any:
    return 2 / beta * jax.nn.softplus(-beta * gap)


def _mean_nll(asked: Asked) -> Any:
    return asked.nll / asked.length


def _scale(asked: Asked, reduction: str) -> Any:
    return asked.length if reduction == "token_mean" else 1


def _nll(reduction: str) -> Callable[[Asked], Any]:
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"reduction {reduction!r} is unknown; choose from {', '.join(REDUCTIONS)}"
        )
    return lambda asked: asked.nll / _scale(asked, reduction)


def _soft(asked: Asked, target: Any) -> Any:
    logp = jax.nn.log_softmax(asked.outputs, axis=-1)
    return asked.mean(-jnp.sum(target * logp, axis=-1))


def _other(seen: Seen) -> Asked:
    if seen.other is None:
        raise ValueError("this term reads other answers, and none were given")
    return seen.other
