"""FLAT: probabilities of a good answer against the one to forget, by a divergence."""

from unlearn_jax.data.answers import Bank
from unlearn_jax.methods.forget_terms import AS_PUBLISHED, DIVERGENCES
from unlearn_jax.methods.forget_terms import flat as flat_term
from unlearn_jax.methods.forgetting import forgetting
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.train.recipe import Learner


@entrance()
def flat(
    learner: Learner,
    *,
    divergence: str = "total_variation",
    answers: Bank = (),
    published: bool = False,
    retain: str = "none",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """Minimise -g(P') + f*(g(P)), P and P' mean probabilities per token.

    P is of the answer to forget, P' of another one. Since probabilities and not their
    logarithms are used, what is forgotten is left alone.

    Args:
        learner: As in :func:`unlearn_jax.methods.forgetting.forgetting`.
        divergence: "total_variation", "kl", "pearson", "jeffrey" or "jensen_shannon";
            with ``published`` also "reverse_kl", "hellinger" and "neyman".
        answers: Templates as tokens, see :mod:`unlearn_jax.data.answers`.
        published: Allows those that point the wrong way as released.
        retain: What holds the retain set: "loss", "kl" or "none".
        retain_weight: Of what holds.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Raises:
        ValueError: an unknown divergence, or one of the wrong sign.

    Cost: epochs × forget × 2 gradients (1 for classes), one more with a retain term.
    Source: Wang et al. 2025, arXiv 2410.11143. Differs: averaged over the tokens of an
        answer; released code divides by the padded length and has retained text where
        templates belong.
    """
    known = {**DIVERGENCES, **(AS_PUBLISHED if published else {})}
    if divergence not in known:
        wrong = divergence in AS_PUBLISHED
        says = "points the wrong way as released" if wrong else "is unknown"
        raise ValueError(
            f"divergence {divergence!r} {says}; choose from {', '.join(known)}"
            f"{', or ask for it with published=True' if wrong else ''}"
        )
    return forgetting(
        learner,
        flat_term(divergence),
        answers=answers,
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
