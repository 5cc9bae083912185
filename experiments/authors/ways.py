"""The ways in which forgotten facts are asked for."""

from collections.abc import Mapping

from unlearn_jax.data.probes import Probe, probes, supported
from unlearn_jax.data.questions import Question

TOLD = "told"
"""Kind of the question behind a statement that answers it: what resurgence asks."""


def asked_otherwise(questions: Mapping[str, list[Question]], count: int) -> list[Probe]:
    """RWKU's levels of the first forgotten questions, and each with the fact told.

    Args:
        questions: Of each part; those to retain serve as examples.
        count: Questions that are asked for; none for 0.
    """
    own = questions["forget"][:count]
    told = [
        Probe(0, TOLD, supported(one, [one.paraphrased_answer]), one.answer)
        for one in own
    ]
    return [*probes(own, questions["retain"]), *told]
