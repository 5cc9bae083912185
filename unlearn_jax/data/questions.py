"""Questions with answers, paraphrases and wrong answers; tokens made of them."""

from collections.abc import Sequence
from typing import NamedTuple

from unlearn_jax.data.tokens import Tokeniser, continuations
from unlearn_jax.types import Batch


class Question(NamedTuple):
    """Value: one fact, asked for.

    Attributes:
        subject: Whom it is about; empty where that is not known.
        question: As in training.
        answer: As in training.
        paraphrased_question: The same question in other words.
        paraphrased_answer: The same answer in other words.
        perturbed_answers: Wrong ones, in the words of the paraphrase.
    """

    subject: str
    question: str
    answer: str
    paraphrased_question: str
    paraphrased_answer: str
    perturbed_answers: tuple[str, ...]


class Template(NamedTuple):
    """Value: how a question becomes a prompt.

    Attributes:
        before: Text before the question.
        after: Text between question and answer; the answer follows at once.
        end: Token that closes an answer and is supervised, or None.
    """

    before: str = "Q: "
    after: str = "\nA: "
    end: int | None = None


def encoded(
    pairs: Sequence[tuple[str, str]],
    tokeniser: Tokeniser,
    *,
    length: int,
    template: Template = Template(),  # noqa: B008 — a constant
) -> Batch:
    """Pairs of question and answer as tokens; the answers are supervised.

    Args:
        pairs: (question, answer) in words.
        tokeniser: Text -> token numbers.
        length: t, tokens in a row.
        template: What is written around a question.

    Returns:
        Batch of (n, length) tokens, every weight one.

    Raises:
        ValueError: one is longer, or there is none.
    """
    if not pairs:
        raise ValueError("got no question at all, expected at least one")
    prompts = [
        list(tokeniser(template.before + question + template.after))
        for question, _ in pairs
    ]
    answers = [list(tokeniser(answer)) for _, answer in pairs]
    return continuations(prompts, answers, length=length, end=template.end)


def trained_pairs(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """What a model is trained on: question and answer."""
    return [(one.question, one.answer) for one in questions]


def paraphrased_pairs(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """The question of training with its answer in other words."""
    return [(one.question, one.paraphrased_answer) for one in questions]


def perturbed_pairs(questions: Sequence[Question]) -> list[list[tuple[str, str]]]:
    """For each question its wrong answers, each with the question of training."""
    return [
        [(one.question, wrong) for wrong in one.perturbed_answers] for one in questions
    ]
