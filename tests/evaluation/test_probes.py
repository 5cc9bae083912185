"""Other ways to ask, what comes back in context, refusals, and vectors of concepts."""

import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.data.authors import draw_authors
from unlearn_jax.data.probes import (
    ATTACKS,
    blank,
    probes,
    supported,
    unlearning_prompt,
    value_of,
)
from unlearn_jax.evaluation.concepts import concept_change, concerned
from unlearn_jax.evaluation.resurgence import refused, resurgence, safe_refusal_rate

FACTS = ("birthplace", "title", "father")


@pytest.fixture(scope="module")
def questions():
    return draw_authors(0, 2, facts=FACTS)


def test_the_value_is_what_wrong_answers_change(questions):
    for one in questions:
        value = value_of(one)
        assert value in one.answer
        assert value in one.paraphrased_answer
        assert not any(
            value == w.rstrip(".").split()[-1] for w in one.perturbed_answers
        )
        prompt, rest = blank(one)
        assert value not in prompt
        assert rest.startswith(value)
        assert f"{prompt} {rest}" in (one.answer, one.paraphrased_answer)
    same = questions[0]._replace(perturbed_answers=(questions[0].paraphrased_answer,))
    with pytest.raises(ValueError, match="no word that tells"):
        value_of(same)


def test_every_level_asks_for_the_same_fact_and_no_prompt_tells_it(questions):
    known, others = questions[:3], questions[3:]
    found = probes(known, others)
    assert len(found) == 3 * (2 + len(ATTACKS))
    assert {probe.level for probe in found} == {1, 2, 3}
    for start, one in zip(range(0, len(found), 2 + len(ATTACKS)), known, strict=True):
        own = {p.kind: p for p in found[start : start + 2 + len(ATTACKS)]}
        value = value_of(one)
        told = {kind for kind, probe in own.items() if value in probe.prompt}
        assert {"choices", "reverse"} <= told
        assert not told - {"choices", "reverse", "in context", "hint"}
        assert own["reverse"].answer == one.subject
        assert one.subject not in own["reverse"].prompt
        assert own["hint"].prompt.endswith(one.question)
        assert own["hint"].prompt != one.question
    alone = probes(known[:1])
    assert {"hint", "in context"}.isdisjoint(probe.kind for probe in alone)


def test_prompts_that_unlearn_tell_false_answers_and_true_ones_of_others(questions):
    forgotten, kept = questions[:1], questions[3:4]
    prompt = unlearning_prompt("Who?", forgotten, kept)
    assert prompt.endswith("Who?")
    assert forgotten[0].answer not in prompt
    assert forgotten[0].perturbed_answers[0] in prompt
    assert kept[0].answer in prompt
    assert (
        supported(questions[0], ["It is so."]) == f"It is so. {questions[0].question}"
    )
    with pytest.raises(ValueError, match="no wrong answer"):
        unlearning_prompt("Who?", [forgotten[0]._replace(perturbed_answers=())], kept)


def test_resurgence_is_zero_where_nothing_returns_and_one_at_the_original():
    assert resurgence(0.2, 0.2, 0.9) == 0
    assert resurgence(0.2, 0.9, 0.9) == pytest.approx(1)
    assert resurgence(0.2, 0.55, 0.9) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="nothing was forgotten"):
        resurgence(0.9, 0.9, 0.9)


def test_refusals_silence_and_circles_are_no_answers():
    texts = [
        "I do not know.",
        "Sadly, i DO NOT know",
        "",
        "the the the the the the",
        "a b c a b c a b c a b c",
        "Mia Kol was born in Lorne.",
        "no",
    ]
    told = refused(texts, ["I do not know."])
    assert told.tolist() == [True, True, True, True, True, False, False]
    assert safe_refusal_rate(texts[3:], ["I do not know."]) == 50
    for given, says in ((([], ["x"]), "at least one"), ((["a"], [" "]), "empty")):
        with pytest.raises(ValueError, match=says):
            safe_refusal_rate(*given)


def test_concepts_are_the_same_after_scaling_and_gone_after_turning():
    draw = np.random.default_rng(0)
    embedding = jnp.asarray(draw.normal(size=(50, 8)))
    before = jnp.asarray(draw.normal(size=(4, 8)))
    after = before.at[0].multiply(3).at[1].multiply(-1).at[2].add(1e-9)
    found = concept_change(before, after, embedding, top=10)
    np.testing.assert_allclose(found.jaccard, [1, 0, 1, 1])
    np.testing.assert_allclose(found.cosine, [1, -1, 1, 1], atol=1e-8)
    lengths = np.linalg.norm(np.asarray(before), axis=1)
    np.testing.assert_allclose(found.distance[:2], 2 * lengths[:2])
    assert float(found.distance[3]) == 0
    # By hand: the ten tokens of largest product, in sets.
    other = jnp.asarray(draw.normal(size=(1, 8)))
    own, new = (
        set(np.argsort(-np.asarray(embedding @ v[0]))[:10].tolist())
        for v in (before, other)
    )
    by_hand = len(own & new) / len(own | new)
    told = concept_change(before[:1], other, embedding, top=10)
    assert float(told.jaccard[0]) == pytest.approx(by_hand)
    assert concerned(jnp.diag(jnp.array([1.0, -5, 2])), 2).tolist() == [1, 2]
    with pytest.raises(ValueError, match="tokens that there are"):
        concept_change(before, after, embedding, top=51)
