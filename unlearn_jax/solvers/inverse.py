"""Which curvature a step is measured in, and how its inverse is applied.

``INVERSES`` is the table: name -> Inverse. One line adds a way to invert.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.fisher import empirical_fisher
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.kronecker_inverse import kronecker_inverse
from unlearn_jax.curvature.operator import LinearOperator, add, damped, dense, scale
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.curvature.per_example import example_bytes
from unlearn_jax.curvature.stochastic_diagonal import hutchinson_diagonal
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.solvers.krylov import lanczos, low_rank_inverse
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.neumann import neumann
from unlearn_jax.solvers.solution import Solution, direct
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch, Params, PRNGKey

LINEARISED_BYTES = 2**30
EXACT_OUTPUTS = 256
"""Numbers for an example up to which EK-FAC takes the expectation over its labels, a
gradient for each number; beyond, and for sequences of any size, a label is drawn."""

CURVATURES: Mapping[str, Callable[[Objective, Params, Batch], LinearOperator]] = {
    "hessian": hessian,
    "gauss_newton": gauss_newton,
    "empirical_fisher": empirical_fisher,
}


class Settings(NamedTuple):
    """Description: how to invert.

    Attributes:
        damping: Added to the curvature.
        tol: Relative residual at which iterations stop.
        max_steps: Most products with a vector; "diagonal" spends all of them.
        rank: Eigenvectors that "low_rank" keeps.
        batch_size: Examples linearised at once; None takes all of them, once for all
            products, where that fits ``LINEARISED_BYTES``, and 256 where it does not.
    """

    damping: float = 0.0
    tol: float = 1e-6
    max_steps: int = 100
    rank: int = 20
    batch_size: int | None = None


class Curvature(NamedTuple):
    """Description: the curvature of the risk over some parts of the data.

    Attributes:
        kind: A name in ``CURVATURES``.
        objective: Loss bound to frozen batch statistics.
        params: Where it is taken.
        parts: Batches that make up the data together.
        operator: The matrix without damping, l2 included.
    """

    kind: str
    objective: Objective
    params: Params
    parts: tuple[Batch, ...]
    operator: LinearOperator


class Inverse(NamedTuple):
    """Description: one way to apply (curvature + damping · I)⁻¹.

    Attributes:
        prepare: ``(key, curvature, settings) -> state``: what all vectors share.
        apply: ``(state, curvature, vector, settings) -> Solution``: the product, and
            how it was come by.
    """

    prepare: Callable[[Any, Curvature, Settings], Any]
    apply: Callable[[Any, Curvature, Any, Settings], Solution]


def curvature_of(
    kind: str,
    objective: Objective,
    params: Params,
    *parts: Batch,
    batch_size: int | None = None,
) -> Curvature:
    """Curvature of the weighted mean loss over all ``parts`` together, plus l2 · I."""
    mass = [jnp.sum(part.weights) for part in parts]
    whole = sum(mass[1:], mass[0])
    size = batch_size or _linearised_at_once(objective, params, parts)
    operators = [
        over_batches(CURVATURES[kind], objective, params, part, batch_size=size)
        for part in parts
    ]
    total = operators[0]
    if len(parts) > 1:
        safe = jnp.where(whole > 0, whole, 1)
        total = scale(mass[0] / safe, total)
        for m, operator in zip(mass[1:], operators[1:], strict=True):
            total = add(total, scale(m / safe, operator))
    if kind == "empirical_fisher" and objective.l2:
        total = damped(total, objective.l2)
    return Curvature(kind, objective, params, parts, total)


def _linearised_at_once(
    objective: Objective, params: Params, parts: tuple[Batch, ...]
) -> int:
    taped = tape(objective.predict, params, parts[0].inputs)
    examples = sum(tree.leading_axis(part) for part in parts)
    fits = examples * example_bytes(taped) <= LINEARISED_BYTES
    return examples if fits else 256


def solve(
    key: PRNGKey, curvature: Curvature, vector: Params, name: str, settings: Settings
) -> Solution:
    """(curvature + damping · I)⁻¹ vector, by the inverse of that name.

    Returns:
        Solution: with the product its residual, steps and the reason why an iteration
        ended; who needs the product alone takes ``usable`` of it.
    """
    inverse = INVERSES[name]
    state = inverse.prepare(key, curvature, settings)
    return inverse.apply(state, curvature, vector, settings)


def check_choice(curvature: str, inverse: str, settings: Settings) -> None:
    """Refuse unknown names and impossible settings when a method is built.

    Raises:
        ValueError: what is wrong, and what there is to choose from.
    """
    for what, name, known in (
        ("curvature", curvature, CURVATURES),
        ("inverse", inverse, INVERSES),
    ):
        if name not in known:
            raise ValueError(
                f"{what} {name!r} is unknown; choose from {', '.join(known)}"
            )
    for what, least in (("max_steps", 1), ("rank", 1), ("batch_size", 1)):
        given = getattr(settings, what)
        if given is not None and given < least:
            raise ValueError(
                f"{what} must be at least {least}, got {getattr(settings, what)}"
            )
    if not settings.damping >= 0:
        raise ValueError(f"damping must not be negative, got {settings.damping}")
    if inverse in ("low_rank", "diagonal", "ekfac") and not settings.damping > 0:
        raise ValueError(
            f"inverse {inverse!r} needs a positive damping, got {settings.damping}"
        )
    if inverse == "diagonal" and settings.max_steps < 2:
        raise ValueError("inverse 'diagonal' draws at least 2 probes; raise max_steps")


def _with_key(key: Any, curvature: Curvature, settings: Settings) -> Any:
    del curvature, settings
    return key


def _cg(state: Any, curvature: Curvature, vector: Params, s: Settings) -> Solution:
    operator = damped(curvature.operator, s.damping)
    return conjugate_gradient(operator, vector, tol=s.tol, max_steps=s.max_steps)


def _minres(state: Any, curvature: Curvature, vector: Params, s: Settings) -> Solution:
    operator = damped(curvature.operator, s.damping)
    return minres(operator, vector, tol=s.tol, max_steps=s.max_steps)


def _neumann(state: Any, curvature: Curvature, vector: Params, s: Settings) -> Solution:
    operator = damped(curvature.operator, s.damping)
    return neumann(operator, vector, tol=s.tol, max_steps=s.max_steps, key=state)


def _eigenvectors(key: Any, curvature: Curvature, s: Settings) -> Any:
    rank = min(s.rank, tree.size(curvature.operator.like))
    return lanczos(key, curvature.operator, rank=rank)


def _low_rank(
    state: Any, curvature: Curvature, vector: Params, s: Settings
) -> Solution:
    return direct(low_rank_inverse(state, vector, damping=s.damping, complement=True))


def _entries(key: Any, curvature: Curvature, s: Settings) -> Params:
    if curvature.kind != "empirical_fisher":
        estimate = hutchinson_diagonal(key, curvature.operator, probes=s.max_steps)
        return jax.tree.map(lambda d: jnp.maximum(d, 0), estimate.value)
    mass = [jnp.sum(part.weights) for part in curvature.parts]
    whole = sum(mass[1:], mass[0])
    total = tree.zeros_like(curvature.params)
    for m, part in zip(mass, curvature.parts, strict=True):
        entries = empirical_fisher_diagonal(curvature.objective, curvature.params, part)
        total = tree.axpy(m / jnp.where(whole > 0, whole, 1), entries, total)
    return jax.tree.map(lambda d: d + curvature.objective.l2, total)


def _diagonal(
    state: Any, curvature: Curvature, vector: Params, s: Settings
) -> Solution:
    return direct(jax.tree.map(lambda d, v: v / (d + s.damping), state, vector))


def _matrix(key: Any, curvature: Curvature, s: Settings) -> Any:
    return dense(damped(curvature.operator, s.damping))


def _dense(state: Any, curvature: Curvature, vector: Params, s: Settings) -> Solution:
    flat, unflatten = jax.flatten_util.ravel_pytree(vector)
    return direct(unflatten(jnp.linalg.solve(state, flat)))


def _kronecker(key: Any, curvature: Curvature, s: Settings) -> Any:
    objective, params, parts = curvature.objective, curvature.params, curvature.parts
    data = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    outputs = jax.eval_shape(objective.predict, params, data.inputs)
    few = outputs.ndim < 3 and outputs.size <= EXACT_OUTPUTS * len(data.weights)
    labels = "exact" if few else "sampled"
    if curvature.kind == "empirical_fisher":
        labels = "true"
    drawn = key if labels == "sampled" else None
    return ekfac(drawn, objective, params, data, labels=labels)


def _ekfac(state: Any, curvature: Curvature, vector: Params, s: Settings) -> Solution:
    damping = s.damping + curvature.objective.l2
    return direct(kronecker_inverse(state, damping=damping)(vector))


INVERSES: Mapping[str, Inverse] = {
    "cg": Inverse(_with_key, _cg),
    "minres": Inverse(_with_key, _minres),
    "neumann": Inverse(_with_key, _neumann),
    "low_rank": Inverse(_eigenvectors, _low_rank),
    "diagonal": Inverse(_entries, _diagonal),
    "ekfac": Inverse(_kronecker, _ekfac),
    "dense": Inverse(_matrix, _dense),
}
