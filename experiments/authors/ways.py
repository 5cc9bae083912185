"""The ways in which forgotten facts are asked for."""

from collections.abc import Mapping

from unlearn_jax.data.probes import Probe, probes, supported, unlearning_prompt
from unlearn_jax.data.questions import Question

TOLD = "told"
"""Kind of the question behind a statement that answers it: what resurgence asks."""
MISLED = "misled"
"""Kind of the question behind a false answer and true ones of others: in context."""
SPARED = "spared"
"""Kind of a retained question behind the same."""
_EXAMPLES = 2
"""True answers in the prompt of in-context unlearning."""


def asked_otherwise(questions: Mapping[str, list[Question]], count: int) -> list[Probe]:
    """RWKU's levels of the first forgotten questions, and each with something told.

    Args:
        questions: Of each part; those to retain serve as examples.
        count: Questions that are asked for; none for 0.
    """
    own = questions["forget"][:count]
    told = [
        Probe(0, TOLD, supported(one, [one.paraphrased_answer]), one.answer)
        for one in own
    ]
    asked, *others = questions["retain"]
    kept = others[:_EXAMPLES]
    for one in own:
        for kind, about in ((MISLED, one), (SPARED, asked)):
            prompt = unlearning_prompt(about.question, [one], kept)
            told.append(Probe(0, kind, prompt, about.answer))
    return [*probes(own, questions["retain"]), *told]
