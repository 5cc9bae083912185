"""Distils the model without the label: from the original (UNDIAL), or itself (CE-U)."""

from unlearn_jax.methods.forget_terms import ce_u as ce_u_term
from unlearn_jax.methods.forget_terms import undial as undial_term
from unlearn_jax.methods.forgetting import forgetting
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.train.recipe import Learner


@entrance()
def undial(
    learner: Learner,
    *,
    strength: float = 10.0,
    retain: str = "none",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
) -> Method:
    """Fit softmax(z₀ - strength · onehot of the label), z₀ the original's logits.

    A cross-entropy with a fixed distribution: convex in the logits, and it ends there.

    Args:
        learner: As in :func:`unlearn_jax.methods.forgetting.forgetting`.
        strength: What the label's logit loses [nats].
        retain: What holds the retain set: "loss", "kl" or "none".
        retain_weight: Of what holds.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: epochs × forget gradients (2 with a retain term) and a forward pass over the
        forget set, whose logits are held.
    Source: UNDIAL as in open-unlearning, Dorna et al. 2025, arXiv 2506.12618. Differs:
        averaged over what is asked for; the port there counts prompts and padding, and
        lowers a token that nobody asked about.
    """
    return forgetting(
        learner,
        undial_term(strength),
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )


@entrance()
def ce_u(
    learner: Learner,
    *,
    retain: str = "none",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """Fit the model's own distribution with the label left out, held fixed (CE-U).

    :func:`undial` without end, from where the model is instead of where it was.

    Args:
        learner: As in :func:`unlearn_jax.methods.forgetting.forgetting`.
        retain: What holds the retain set: "loss", "kl" or "none".
        retain_weight: Of what holds.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: epochs × forget gradients (2 with a retain term).
    Source: CE-U as in open-unlearning, Dorna et al. 2025, arXiv 2506.12618.
    """
    return forgetting(
        learner,
        ce_u_term(),
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
