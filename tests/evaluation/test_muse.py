"""MUSE's numbers: ends of their ranges, and what cuts an answer off."""

import pytest

from unlearn_jax.evaluation.muse import knowledge, privacy_leak, slope, verbatim


def test_verbatim_is_the_mean_of_two_way_overlaps():
    assert verbatim(["a b c", "x y"], ["A b, c.", "p q"]) == 50
    # Two words of two, two of four: F = 2 / 3.
    assert verbatim(["the cat"], ["the cat sat down"]) == pytest.approx(200 / 3)
    with pytest.raises(ValueError, match="2 texts and 1 true"):
        verbatim(["a", "b"], ["a"])


def test_an_answer_ends_where_the_next_question_begins():
    said = ["Tarn\n\nQuestion: who", "Tarn Question: who"]
    assert knowledge(said[:1], ["Tarn"]) == 100
    assert knowledge(said[1:], ["Tarn"]) == 50
    assert knowledge(said[1:], ["Tarn"], stops=("\n\n", "Question")) == 100


def test_the_leak_has_the_bounds_that_its_oracle_leaves():
    leak = privacy_leak(0.0, 0.4772)
    assert leak.value == leak.least == -100
    assert leak.most == pytest.approx(109.6, abs=0.05)
    assert privacy_leak(1.0, 0.5393).value == pytest.approx(85.4, abs=0.05)
    assert privacy_leak(0.5, 0.5).value == 0
    with pytest.raises(ValueError, match="above 0"):
        privacy_leak(0.5, 0.0)


def test_what_wears_off_has_a_slope():
    assert slope([5.0, 5.0, 5.0]) == 0
    assert slope([1.0, 0.5, 0.0, -0.5]) == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="at least two"):
        slope([1.0])
