"""Ascent on the forget set held by the retain set: GradDiff, and KL minimisation."""

from unlearn_jax.methods.forget_terms import ascent
from unlearn_jax.methods.forgetting import forgetting
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.train.recipe import Learner


@entrance()
def graddiff(
    learner: Learner,
    *,
    forget_weight: float = 1.0,
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """Minimise -u(forget) + what holds the retain set, u the loss per token.

    With ``retain="kl"`` this is the baseline KL minimisation. Unlike ``neggrad_plus`` a
    pass is over the forget set; nothing ends the ascent.

    Args:
        learner: As in :func:`unlearn_jax.methods.forgetting.forgetting`.
        forget_weight: Of the ascent.
        retain: What holds the retain set: "loss", "kl" or "none".
        retain_weight: Of what holds.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: epochs × forget × 2 gradients.
    Source: Maini et al. 2024, arXiv 2401.06121; defaults of open-unlearning. Differs:
        KL is averaged over what is asked for, where released code has prompts and
        padding too.
    """
    return forgetting(
        learner,
        ascent(),
        forget_weight=forget_weight,
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
