"""Opt-Out: NPO whose weights are held near the original's by optimal transport."""

from unlearn_jax.methods.forget_terms import npo as npo_term
from unlearn_jax.methods.forgetting import forgetting
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.methods.tether import TETHERS
from unlearn_jax.options import check_number
from unlearn_jax.train.recipe import Learner


@entrance()
def opt_out(
    learner: Learner,
    *,
    tether: str = "wasserstein",
    strength: float = 0.1,
    directions: int = 100,
    beta: float = 0.1,
    reduction: str = "token_mean",
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 2,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """Minimise ``npo`` + strength · distance(θ, θ₀), summed over all weight matrices.

    Args:
        learner: As in :func:`unlearn_jax.methods.npo.npo`, with the other options.
        tether: "wasserstein", sliced, which does not see neurons that change places; or
            "squares", ‖θ - θ₀‖² / row length, the control: for small changes both are
            one, so try it before crediting the transport.
        strength: Of the distance [nats / parameter²].
        directions: Random ones of the slicing, drawn anew in each step.
        beta: Sharpness [1 / nat].
        reduction: As in ``npo``.
        retain: "loss", "kl" or "none".
        retain_weight: Of the retain term.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Raises:
        ValueError: an unknown tether.

    Cost: as ``npo``, and in every step ``directions`` products with each matrix.
    Source: Choi et al. 2025, arXiv 2406.12329. Differs: one step for all terms where
        theirs takes two, forgetting and holding; no third set of world knowledge; the
        original is held in the parameters' own precision.
    """
    check_number("opt_out: beta", beta, positive=True)
    if tether not in TETHERS:
        raise ValueError(
            f"tether {tether!r} is unknown; choose from {', '.join(TETHERS)}"
        )
    return forgetting(
        learner,
        npo_term(beta, reduction),
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        tether=TETHERS[tether](directions),
        tether_weight=strength,
    )
