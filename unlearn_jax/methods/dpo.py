"""Another answer is preferred to the one to forget: refusals, DPO, mismatches."""

from unlearn_jax.data.answers import Bank
from unlearn_jax.methods.forget_terms import dpo as dpo_term
from unlearn_jax.methods.forget_terms import mismatch
from unlearn_jax.methods.forget_terms import refusal as refusal_term
from unlearn_jax.methods.forgetting import forgetting
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.options import check_number
from unlearn_jax.train.recipe import Learner


@entrance()
def refusal(
    learner: Learner,
    *,
    answers: Bank = (),
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """Fit another answer to every question to forget: "I don't know" (IDK).

    Args:
        learner: As in :func:`unlearn_jax.methods.forgetting.forgetting`.
        answers: Refusals as tokens, see :mod:`unlearn_jax.data.answers`; without any,
            another class or any tokens.
        retain: What holds the retain set: "loss", "kl" or "none".
        retain_weight: Of what holds.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: epochs × forget × 2 gradients.
    Source: Maini et al. 2024, arXiv 2401.06121 ("preference optimisation" there).
        Differs: one refusal for each question, drawn once; there anew in every pass.
    """
    return forgetting(
        learner,
        refusal_term(),
        answers=answers,
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )


@entrance()
def dpo(
    learner: Learner,
    *,
    beta: float = 0.1,
    reduction: str = "sum",
    answers: Bank = (),
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """Minimise (2/β) softplus(-β ((s - s₀) - (s' - s'₀))), s' of another answer.

    Args:
        learner: As in :func:`unlearn_jax.methods.forgetting.forgetting`.
        beta: Sharpness [1 / nat].
        reduction: s as a "sum" over tokens, or their "token_mean".
        answers: As in :func:`refusal`.
        retain: What holds the retain set: "loss", "kl" or "none".
        retain_weight: Of what holds.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: epochs × forget × 3 gradients (2 for classes), two forward passes over the
        forget set.
    Source: the baseline DPO of Zhang et al. 2024, arXiv 2404.05868.
    """
    check_number("dpo: beta", beta, positive=True)
    return forgetting(
        learner,
        dpo_term(beta, reduction),
        answers=answers,
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )


@entrance()
def llmu(
    learner: Learner,
    *,
    ascent_weight: float = 0.5,
    other_weight: float = 1.0,
    answers: Bank = (),
    retain: str = "kl",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 2e-6,
    batch_size: int = 32,
) -> Method:
    """Away from the true answer, towards a mismatched one, near the original elsewhere.

    Args:
        learner: As in :func:`unlearn_jax.methods.forgetting.forgetting`.
        ascent_weight: Of the ascent on the true answer.
        other_weight: Of the mismatched answer.
        answers: Answers to other questions, as tokens; as in :func:`refusal`.
        retain: What holds the retain set: "loss", "kl" or "none".
        retain_weight: Of what holds.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: epochs × forget × 3 gradients (2 for classes), and a forward pass.
    Source: Yao, Xu & Liu 2023, arXiv 2310.10683. Differs: one mismatched answer for
        each question instead of five; answers begin where they begin, which its
        released code misses.
    """
    return forgetting(
        learner,
        mismatch(ascent_weight, other_weight),
        answers=answers,
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
