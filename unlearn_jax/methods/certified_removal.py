"""Certified removal for linear models: Newton steps within a budget, else retraining.

Not in ``METHODS``, whose entries take any model: this one is a linear model of its own.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from unlearn_jax.methods.certified_linear import (
    CertifiedModel,
    certified_fit,
    certified_remove,
    residual_bound,
    residual_budget,
)
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables


class CertifiedState(NamedTuple):
    """Value: the certified model and what became of the requests so far.

    Attributes:
        model: What is released, with its accumulated bound.
        certified: Whether the latest request was served by a certified removal; where
            not, the model was trained again without those rows.
        removals: Certified removals so far.
        retrainings: Trainings after the first.
    """

    model: CertifiedModel
    certified: Bool[Array, ""]
    removals: Int[Array, ""]
    retrainings: Int[Array, ""]


def certified_removal(
    learner: Learner,
    *,
    epsilon: float = 1.0,
    delta: float = 1e-4,
    sigma: float = 10.0,
    l2: float = 1e-3,
    steps: int = 30,
) -> Method:
    """One-vs-rest logistic regression whose removals are (epsilon, delta) certified.

    ``prepare`` trains on the perturbed objective: the original's parameters are not
    used, and its model must be the ``linear`` one. ``forget`` takes a Newton step while
    the accumulated bound stays within sigma · epsilon / √(2 ln(1.5 / delta)), else it
    trains again with fresh noise, and the bound starts anew.

    Args:
        learner: Its model says what the answer looks like; loss, l2, recipe are unread.
        epsilon: Of the certificate (no unit); small, as for the Gaussian mechanism.
        delta: Of the certificate (no unit).
        sigma: Standard deviation of the noise in the objective (a sum over examples).
        l2: λ of λ m/2 ‖θ‖², on the bias too.
        steps: Newton steps of a training.

    Scale inputs so that a row and its constant 1 have norm at most 1: a longer row
    loosens the bound by its norm.

    Returns:
        Method; its state is a CertifiedState.

    Raises:
        ValueError: an impossible certificate; from ``prepare`` and ``forget``, a model
            that is not linear or targets that are not class indices.

    Cost: prepare, steps × n f² k; forget, n f² k, or a training.
    Source: Guo et al. 2020, arXiv 1911.03030, algorithm 2. Differs: see
        :func:`unlearn_jax.methods.certified_linear.certified_remove`.
    """
    del learner
    budget = residual_budget(sigma, epsilon, delta)
    if not l2 > 0 or steps < 1:
        raise ValueError(f"expected positive l2 and steps, got {l2} and {steps}")

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> CertifiedState:
        rows = logistic_rows(original.params, train)
        model = certified_fit(key, rows, l2=l2, sigma=sigma, steps=steps)
        zero = jnp.zeros((), jnp.int32)
        return CertifiedState(model, residual_bound(model) <= budget, zero, zero)

    def forget(
        key: PRNGKey, state: CertifiedState, variables: Variables, request: Request
    ) -> tuple[Variables, CertifiedState]:
        kept = logistic_rows(variables.params, request.retain)
        removed = logistic_rows(variables.params, request.forget)
        moved = certified_remove(state.model, kept, removed, l2=l2)
        within = residual_bound(moved) <= budget
        model = jax.lax.cond(
            within,
            lambda: moved,
            lambda: certified_fit(key, kept, l2=l2, sigma=sigma, steps=steps),
        )
        state = CertifiedState(
            model, within, state.removals + within, state.retrainings + ~within
        )
        return released(variables, model), state

    return Method(prepare, forget)


def released(variables: Variables, model: CertifiedModel) -> Variables:
    """The linear model's variables with the certified weights."""
    head = variables.params["head"]
    moved = {
        "kernel": model.weight[:-1].astype(head["kernel"].dtype),
        "bias": model.weight[-1].astype(head["bias"].dtype),
    }
    return variables._replace(params={"head": moved})


def logistic_rows(params: Params, data: Batch) -> Batch:
    """Flattened inputs and a constant 1; labels ±1, each class against the rest.

    Raises:
        ValueError: the parameters are not those of a linear model on these inputs, or
            the targets are not class indices.
    """
    n = data.inputs.shape[0]
    width = int(np.prod(data.inputs.shape[1:]))
    found: Any = jax.tree.map(jnp.shape, params)
    head: Any = found.get("head") if isinstance(found, dict) else None
    alone = isinstance(head, dict) and len(found) == 1
    linear = alone and set(head) == {"kernel", "bias"}
    if not linear or head["kernel"][0] != width:
        raise ValueError(
            f"certified removal needs the linear model on {width} inputs, got "
            f"parameters of shapes {found}; take the model 'linear'"
        )
    if not jnp.issubdtype(data.targets.dtype, jnp.integer):
        raise ValueError(
            f"certified removal needs class indices, got targets {data.targets.dtype}"
        )
    kernel: Any = params["head"]["kernel"]
    classes = jnp.arange(kernel.shape[1])
    own = jnp.asarray(data.targets)[:, None] == classes[None]
    inputs = jnp.asarray(data.inputs).reshape(n, width).astype(kernel.dtype)
    rows = jnp.concatenate([inputs, jnp.ones((n, 1), inputs.dtype)], axis=1)
    return Batch(rows, jnp.where(own, 1.0, -1.0).astype(rows.dtype), data.weights)
