"""Merges the original with a model that has begun to forget."""

from typing import Any

import jax

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.methods.finetune import finetune
from unlearn_jax.methods.gradient_ascent import gradient_ascent
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.merging import fisher_merge
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Params, PRNGKey, Variables

PARTNERS = ("finetune", "ascent")


@entrance()
def fisher_merging(
    learner: Learner,
    *,
    partner: str = "finetune",
    share: float = 0.5,
    floor: float = 1e-6,
    epochs: int = 5,
    learning_rate: float = 0.01,
    batch_size: int = 256,
) -> Method:
    """Merge the original with a partner, each parameter by their Fishers.

    θ = (share · F_p θ_p + (1 − share) · F_o θ_o) / (share · F_p + (1 − share) · F_o),
    every F the mean squared gradient per example, at its own model, plus ``floor``.

    Args:
        learner: Optimiser, momentum and weight decay are those of its recipe.
        partner: "finetune": the original trained on, on the retain set; both Fishers
            are of the retain set. "ascent": the original after ascent on the forget
            set; its Fisher is of the forget set, the original's of the retain set, so
            that what the forget set needs comes from the partner.
        share: Weight of the partner from 0 to 1 (no unit).
        floor: Added to every Fisher [loss² / parameter²]; keeps the weights positive.
        epochs: Passes that make the partner.
        learning_rate: Constant step size of these passes.
        batch_size: Examples per step.

    Batch statistics are the partner's.

    Raises:
        ValueError: unknown ``partner``, ``share`` outside [0, 1], or ``floor`` not
            positive.

    Cost: the partner's, and two gradients per retain example.
    Source: the merge of Matena & Raffel 2022, arXiv 2111.09832; its use for unlearning
        is ours, no single source.
    """
    if partner not in PARTNERS:
        raise ValueError(
            f"partner {partner!r} is unknown; choose from {', '.join(PARTNERS)}"
        )
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    if not floor > 0:
        raise ValueError(f"floor must be positive, got {floor}")
    make = finetune if partner == "finetune" else gradient_ascent
    method = make(
        learner, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size
    )

    def importance(variables: Variables, data: Batch) -> Params:
        objective = bind(learner.model, variables.stats, learner.loss)
        value = empirical_fisher_diagonal(
            objective, variables.params, data, batch_size=32
        )
        return jax.tree.map(lambda f: f + floor, value)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        moved: Any = method.forget(key, (), variables, request)[0]
        own = request.retain if partner == "finetune" else request.forget
        params = fisher_merge(
            [variables.params, moved.params],
            [importance(variables, request.retain), importance(moved, own)],
            [1.0 - share, share],
        )
        return moved._replace(params=params)

    return stateless(forget)
