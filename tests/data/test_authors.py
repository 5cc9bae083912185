"""Authors by seed: distinct, reproducible, with wrong answers that are wrong."""

import itertools
import json

import pytest

from unlearn_jax.data.authors import (
    FACTS,
    author_name,
    author_questions,
    draw_authors,
)
from unlearn_jax.data.places import draw_places
from unlearn_jax.data.questions import (
    paraphrased_pairs,
    perturbed_pairs,
    trained_pairs,
)
from unlearn_jax.data.tofu import tofu


def test_names_are_distinct_far_out_too():
    numbers = [*range(3000), *range(1_638_400, 1_639_000), 13_107_199]
    assert len({author_name(0, n) for n in numbers}) == len(numbers)
    assert len({author_name(0, n) for n in range(0, 2_000_000, 97)}) == 20619
    with pytest.raises(ValueError, match="below 13107200"):
        author_name(0, 13_107_200)


def test_an_author_does_not_depend_on_who_else_is_drawn():
    some = draw_authors(5, 4, first=2)
    assert some[: len(FACTS)] == author_questions(5, 2)
    assert some == draw_authors(5, 6)[2 * len(FACTS) :]
    assert some != draw_authors(6, 4, first=2)
    assert len({one.subject for one in some}) == 4


def test_wrong_answers_differ_from_the_true_one_and_from_each_other():
    for one in draw_authors(0, 20, perturbed=4):
        said = (one.paraphrased_answer, *one.perturbed_answers)
        assert len(set(said)) == 5
        assert all(one.subject in text for text in (one.question, *said))
        assert one.paraphrased_question != one.question
        assert one.paraphrased_answer != one.answer


def test_facts_vary_between_authors():
    for fact in FACTS:
        asked = draw_authors(1, 40, facts=[fact])
        assert len({one.answer.replace(one.subject, "") for one in asked}) > 8


def test_towns_are_asked_about_where_authors_live():
    towns = draw_places(0, 25)
    homes = {one.answer.split()[-1].rstrip(".") for one in draw_authors(0, 30)}
    assert len({one.subject for one in towns} & homes) > 10
    assert draw_places(0, 3) == towns[:12]
    assert all(one.subject in one.paraphrased_answer for one in towns)
    with pytest.raises(ValueError, match="expected 0 to 25"):
        draw_places(0, 26)


def test_pairs_are_what_they_are_called():
    (one,) = draw_authors(0, 1, facts=["year"], perturbed=2)
    assert trained_pairs([one]) == [(one.question, one.answer)]
    assert paraphrased_pairs([one]) == [(one.question, one.paraphrased_answer)]
    assert perturbed_pairs([one]) == [
        [(one.question, wrong) for wrong in one.perturbed_answers]
    ]


def test_unknown_facts_and_too_many_wrong_answers_are_refused():
    with pytest.raises(ValueError, match="no fact 'shoes'"):
        author_questions(0, 0, facts=["shoes"])
    with pytest.raises(ValueError, match="genre has 12 values"):
        author_questions(0, 0, facts=["genre"], perturbed=12)


LINES = "\n\n".join(
    json.dumps(line)
    for line in (
        {
            "question": "Who?",
            "answer": "Me.",
            "paraphrased_answer": "I.",
            "perturbed_answer": ["He.", "She."],
            "paraphrased_question": "Which one?",
        },
        {"question": "Where?", "answer": "Here."},
    )
)


def test_tofu_is_read_as_it_lies(tmp_path):
    (tmp_path / "forget01_perturbed.json").write_text(LINES)
    first, second = tofu(tmp_path, "forget01_perturbed")
    assert first[1:] == ("Who?", "Me.", "Which one?", "I.", ("He.", "She."))
    assert second[1:] == ("Where?", "Here.", "Where?", "Here.", ())
    with pytest.raises(FileNotFoundError, match="forget01_perturbed"):
        tofu(tmp_path, "forget99")
    (tmp_path / "broken.json").write_text('{"question": 3}\n')
    with pytest.raises(ValueError, match="line 1 is no question"):
        tofu(tmp_path, "broken")


def test_questions_of_a_set_are_distinct():
    asked = [one.question for one in draw_authors(0, 300)]
    pairs = itertools.pairwise(sorted(asked))
    assert all(a != b for a, b in pairs)
