"""Facts by seed: questions about a subject, with paraphrases and wrong answers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unlearn_jax.data.questions import Question


class Fact(NamedTuple):
    """Description: one thing to know of a subject.

    Attributes:
        values: What it may be.
        question: Asks for it; ``{name}`` is the subject.
        answer: ``{name}`` and ``{value}`` stand in it.
        other_question: In other words.
        other_answer: In other words.
    """

    values: Sequence[str]
    question: str
    answer: str
    other_question: str
    other_answer: str


def questions_about(
    stream: Sequence[int],
    name: str,
    table: Mapping[str, Fact],
    facts: Sequence[str],
    *,
    perturbed: int = 5,
) -> list[Question]:
    """Questions about one subject, their answers drawn.

    Args:
        stream: Numbers that the answers are drawn by, such as seed and subject.
        name: Of the subject.
        table: Everything that can be asked.
        facts: Names in it.
        perturbed: Wrong answers of each question, all different and none true.

    Raises:
        ValueError: an unknown fact, or more wrong answers than there are values.
    """
    questions = []
    for fact in facts:
        if fact not in table:
            raise ValueError(
                f"there is no fact {fact!r}; choose from {', '.join(table)}"
            )
        told = table[fact]
        if not 0 <= perturbed < len(told.values):
            raise ValueError(
                f"perturbed is {perturbed}, but {fact} has {len(told.values)} values; "
                f"expected 0 to {len(told.values) - 1}"
            )
        place = list(table).index(fact)
        random = np.random.Generator(np.random.PCG64([*stream, place]))
        drawn = random.permutation(len(told.values))[: perturbed + 1]
        value, *wrong = (told.values[i] for i in drawn)
        questions.append(
            Question(
                subject=name,
                question=told.question.format(name=name),
                answer=told.answer.format(name=name, value=value),
                paraphrased_question=told.other_question.format(name=name),
                paraphrased_answer=told.other_answer.format(name=name, value=value),
                perturbed_answers=tuple(
                    told.other_answer.format(name=name, value=other) for other in wrong
                ),
            )
        )
    return questions
