"""RMU: hidden activations of the forget set are led to one random direction."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.methods.paired import Part, paired_descent, part_of
from unlearn_jax.train.fit import choose_fit_loop, weighted_mean
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import PRNGKey, Variables


@entrance()
def rmu(
    learner: Learner,
    *,
    length: float = 2.0,
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 5e-5,
    batch_size: int = 16,
) -> Method:
    """Minimise mean (h - c u)² on the forget set + weight · mean (h - h₀)² on the rest.

    h are the model's ``features``, the input of its last linear map; u is a direction
    of the positive orthant, drawn once for a request; h₀ the original's. Means are over
    positions that are asked for and over features. Any other layer is a model whose
    ``features`` give that layer: ``model._replace(features=...)``. What lies behind the
    features has no gradient and stays.

    Args:
        learner: Optimiser and momentum are those of its recipe; no l2, no decay.
        length: c, in the unit of the features.
        retain_weight: Of the retain term.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics stay.

    Cost: epochs × forget × 2 gradients and one forward pass of the original.
    Source: Li et al. 2024, arXiv 2403.03218, defaults of open-unlearning. Differs: at
        the last features instead of the seventh layer unless a model says otherwise;
        its least-squares form makes the forget term a Gauss-Newton problem.
    """
    model = learner.model
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="constant",
        augment="none",
        weight_decay=0.0,
    )

    def miss(hidden: Any, wanted: Any, targets: Any) -> Any:
        square = jnp.mean(jnp.square(hidden - wanted), axis=-1)
        if square.ndim == 1:
            return square
        kept = targets >= 0
        total = jnp.sum(jnp.where(kept, square, 0), axis=-1)
        return total / jnp.maximum(jnp.sum(kept, axis=-1), 1)

    def pair_loss(
        key: Any, params: Any, stats: Any, carried: Any, forget: Part, kept: Part
    ) -> Any:
        del key
        at = Variables(params, stats)
        inputs, targets = forget.examples
        hidden = model.features(at, inputs)
        wanted = carried["direction"].reshape((1,) * (hidden.ndim - 1) + (-1,))
        lost = weighted_mean(miss(hidden, wanted, targets), forget.weights)
        inputs, targets = kept.examples
        before = model.features(carried["original"], inputs)
        moved = miss(model.features(at, inputs), before, targets)
        held = weighted_mean(moved, kept.weights)
        return lost + retain_weight * held, stats, carried

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        draw_key, run_key = jax.random.split(key)
        two = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape[1:]), leaf.dtype),
            request.forget.inputs,
        )
        like = jax.eval_shape(model.features, variables, two)
        drawn = jax.random.uniform(draw_key, like.shape[-1:], like.dtype)
        direction = length * drawn / jnp.sqrt(jnp.sum(jnp.square(drawn)))
        moved, *_ = paired_descent(
            run_key,
            variables,
            part_of(request.forget),
            part_of(request.retain),
            pair_loss,
            recipe,
            beside_batch=batch_size,
            carried={"direction": direction, "original": variables},
            loop=choose_fit_loop(learner, request.retain, key, variables),
        )
        return moved

    return stateless(forget)
