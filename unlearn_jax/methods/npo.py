"""Negative preference optimisation: ascent that ends by itself."""

from unlearn_jax.methods.forget_terms import npo as npo_term
from unlearn_jax.methods.forget_terms import simnpo as simnpo_term
from unlearn_jax.methods.forgetting import forgetting
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.options import check_number
from unlearn_jax.train.recipe import Learner


@entrance()
def npo(
    learner: Learner,
    *,
    beta: float = 0.1,
    reduction: str = "sum",
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """Minimise (2/β) softplus(-β (s - s₀)) on the forget set, s₀ of the original.

    s is the negative log-likelihood of an answer. At the original the gradient is that
    of ascent on s, whatever β; far from it the weight 2 σ(-β (s - s₀)) of an example
    fades.

    Args:
        learner: As in :func:`unlearn_jax.methods.forgetting.forgetting`, with the other
            options.
        beta: Sharpness [1 / nat]; towards 0 this is ascent without an end.
        reduction: s as a "sum" over the tokens of an answer, or their "token_mean". A
            beta of one is off by the number of tokens in the other.
        retain: "loss", "kl" or "none".
        retain_weight: Of the retain term.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: epochs × forget × 2 gradients, and one forward pass over the forget set.
    Source: Zhang et al. 2024, arXiv 2404.05868; defaults of open-unlearning. As
        published; MUSE and its heirs put raw logits where s belongs.
    """
    check_number("npo: beta", beta, positive=True)
    return forgetting(
        learner,
        npo_term(beta, reduction),
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )


@entrance(signed=("margin",))
def simnpo(
    learner: Learner,
    *,
    beta: float = 4.5,
    margin: float = 0.0,
    forget_weight: float = 0.125,
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """Minimise (2/β) softplus(-β (u - margin)), u per token, without the original.

    Args:
        learner: As in :func:`npo`.
        beta: Sharpness [1 / nat per token].
        margin: Of u [nats per token], where half the weight is gone.
        forget_weight: Of the forget term.
        retain: As in :func:`npo`.
        retain_weight: Of the retain term.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: epochs × forget × 2 gradients.
    Source: Fan et al. 2024, arXiv 2410.07163; defaults of its forget10. The margin is
        that of the code, inside β; the text has it outside.
    """
    check_number("simnpo: beta", beta, positive=True)
    return forgetting(
        learner,
        simnpo_term(beta, margin),
        forget_weight=forget_weight,
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )


@entrance()
def npo_smooth(
    learner: Learner,
    *,
    smoothing: str = "sharpness",
    smoothing_size: float = 0.01,
    samples: int = 3,
    average_from: float = 1.0,
    beta: float = 0.1,
    reduction: str = "sum",
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """:func:`npo` whose forget term is flat around the weights, against relearning.

    Args:
        learner: As there.
        smoothing: "sharpness" (SAM), "random" (randomised smoothing),
            "gradient_penalty", "curvature_penalty" or "none".
        smoothing_size: Radius of "sharpness", standard deviation of "random"
            [parameter], weight of a penalty (no unit).
        samples: Perturbations of "random".
        average_from: Share of the run after which parameters are averaged; 1 for never.
        beta: As in :func:`npo`.
        reduction: As there.
        retain: As there.
        retain_weight: Of the retain term.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: as :func:`npo`; the gradients of the forget set twice for "sharpness" and
        "gradient_penalty", ``samples`` times for "random", four times for curvature.
    Source: Fan et al. 2025, arXiv 2502.05374; methods/smoothing.py says what differs.
    """
    check_number("npo_smooth: beta", beta, positive=True)
    return forgetting(
        learner,
        npo_term(beta, reduction),
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        smoothing=smoothing,
        smoothing_size=smoothing_size,
        samples=samples,
        average_from=average_from,
    )
