"""Ascent that presses on some tokens more than on others: WGA and SatImp."""

from unlearn_jax.methods.forget_terms import weighted_ascent
from unlearn_jax.methods.forgetting import forgetting
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.train.recipe import Learner


@entrance()
def wga(
    learner: Learner,
    *,
    power: float = 1.0,
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """Ascent with weight p^power on each token, so that the forgotten is left alone.

    Args:
        learner: As in :func:`unlearn_jax.methods.forgetting.forgetting`.
        power: Of the token's probability, held fixed in the gradient; 0 is ascent.
        retain: What holds the retain set: "loss", "kl" or "none".
        retain_weight: Of what holds.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: epochs × forget × 2 gradients.
    Source: WGA as in open-unlearning, Dorna et al. 2025, arXiv 2506.12618.
    """
    return forgetting(
        learner,
        weighted_ascent(power, 0.0),
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )


@entrance()
def satimp(
    learner: Learner,
    *,
    power: float = 5.0,
    doubt: float = 1.0,
    forget_weight: float = 0.1,
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """Ascent with weight p^power (1 - p)^doubt: saturated and important tokens.

    Args:
        learner: As in :func:`unlearn_jax.methods.forgetting.forgetting`.
        power: Of the token's probability, held fixed in the gradient.
        doubt: Of one minus it.
        forget_weight: Of the ascent.
        retain: What holds the retain set: "loss", "kl" or "none".
        retain_weight: Of what holds.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: epochs × forget × 2 gradients.
    Source: SatImp as in open-unlearning, Dorna et al. 2025, arXiv 2506.12618.
    """
    return forgetting(
        learner,
        weighted_ascent(power, doubt),
        forget_weight=forget_weight,
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
