"""Amnesiac: wrong labels that are drawn once, learned beside the rest."""

import jax
import jax.numpy as jnp

from unlearn_jax.data.answers import wrong_labels
from unlearn_jax.data.batch import concatenate
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner, under_adam
from unlearn_jax.types import PRNGKey, Variables


@entrance()
def amnesiac(
    learner: Learner,
    *,
    epochs: int = 3,
    learning_rate: float = 1e-4,
    batch_size: int = 256,
) -> Method:
    """Give every forget example a wrong label for good, and train on with everything.

    Args:
        learner: Its loss takes class indices; l2 and the recipe's augmentation hold.
        epochs: Passes over the retain set and the relabelled forget set, mixed.
        learning_rate: Step size of Adam.
        batch_size: Examples per step.

    Batch statistics move.

    Raises:
        ValueError: from ``forget``, when the model has one output.

    Cost: epochs × all examples gradients.
    Source: Graves et al. 2021, arXiv 2010.10981, the relabelling that benchmarks call
        Amnesiac, with schedule and optimiser of the code of Foster et al. 2024, arXiv
        2308.07707. The paper's other way, to take back the updates of batches, needs
        what training kept of each: :mod:`unlearn_jax.methods.amnesiac_updates`.
    """
    tuned = under_adam(
        learner, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size
    )

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        label_key, order_key = jax.random.split(key)
        kept, lost = jax.tree.map(jnp.asarray, (request.retain, request.forget))
        outputs = jax.eval_shape(learner.model.apply, variables, lost.inputs)
        labels = wrong_labels(label_key, lost.targets, outputs.shape[-1])
        both = concatenate(kept, lost._replace(targets=labels))
        return fit(order_key, tuned, both, start=variables)

    return stateless(forget)
