"""Numbers per sequence, against loops over tokens and against known distributions."""

import itertools
import math
import zlib

import numpy as np
import pytest

from unlearn_jax.evaluation.sequences import (
    exact_memorisation,
    extraction_strength,
    min_k,
    min_k_plus,
    probability,
    told,
    zlib_score,
)
from unlearn_jax.evaluation.tofu import (
    PARTS,
    forget_quality,
    forgotten_truth,
    model_utility,
    rouge_l,
    truth_ratio,
    useful_truth,
)

TARGETS = np.array([[-1, 2, 0, 3, 1], [4, 1, -1, -1, -1], [0, 0, 0, 0, 0]], np.int32)


@pytest.fixture(scope="module")
def outputs():
    return np.random.default_rng(0).normal(size=(3, 5, 6)) * 2


@pytest.fixture(scope="module")
def said(outputs):
    return told(outputs, TARGETS)


def each(outputs):
    """For each sequence: list of (log-probabilities, label)."""
    logp = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    return [
        [(logp[i, s], y) for s, y in enumerate(row) if y >= 0]
        for i, row in enumerate(TARGETS)
    ]


def test_they_are_their_formulas(outputs, said):
    for i, tokens in enumerate(each(outputs)):
        logs = [logp[y] for logp, y in tokens]
        hits = [int(np.argmax(logp) == y) for logp, y in tokens]
        count = max(1, math.floor(0.4 * len(tokens)))
        assert probability(said)[i] == pytest.approx(math.exp(np.mean(logs)))
        assert exact_memorisation(said)[i] == pytest.approx(np.mean(hits))
        kept = next(k for k in range(len(hits) + 1) if all(hits[k:]))
        assert extraction_strength(said)[i] == pytest.approx(1 - kept / len(hits))
        assert min_k(said)[i] == pytest.approx(np.mean(sorted(logs)[:count]))
        scaled = []
        for logp, y in tokens:
            p = np.exp(logp)
            mean = p @ logp
            scaled.append((logp[y] - mean) / np.sqrt(p @ (logp - mean) ** 2))
        assert min_k_plus(said)[i] == pytest.approx(np.mean(sorted(scaled)[:count]))


def test_a_model_that_knows_all_is_at_the_end_of_every_range():
    sure = 60.0 * np.eye(6)[np.maximum(TARGETS, 0)]
    known = told(sure, TARGETS)
    for metric in (probability, exact_memorisation, extraction_strength):
        np.testing.assert_allclose(metric(known), 1)
    np.testing.assert_allclose(min_k(known), 0, atol=1e-12)
    assert np.isfinite(min_k_plus(known)).all()
    wrong = told(60.0 * np.eye(6)[(np.maximum(TARGETS, 0) + 1) % 6], TARGETS)
    for metric in (exact_memorisation, extraction_strength):
        np.testing.assert_array_equal(metric(wrong), 0)


def test_min_k_plus_has_no_drift_for_tokens_that_the_model_draws():
    random = np.random.default_rng(1)
    logits = random.normal(size=(4000, 1, 5))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    drawn = (random.random((4000, 1, 1)) > np.cumsum(p, -1)).sum(-1)
    score = min_k_plus(told(logits, np.minimum(drawn, 4).astype(np.int32)), 1.0)
    assert abs(score.mean()) < 4 / np.sqrt(len(score))
    assert abs(score.std() - 1) < 0.1


def test_zlib_divides_by_the_compressed_length(said):
    texts = ["abc", "abcabcabcabcabc", "x"]
    whole = np.where(said.kept, said.log_likelihoods, 0).sum(1)
    sizes = [len(zlib.compress(text.encode())) for text in texts]
    np.testing.assert_allclose(zlib_score(said, texts), whole / sizes)
    with pytest.raises(ValueError, match="2 texts for 3 sequences"):
        zlib_score(said, texts[:2])


def test_what_has_no_answer_is_refused(outputs, said):
    with pytest.raises(ValueError, match="ask for no token, the first is 1"):
        told(outputs[:2], np.array([[1] * 5, [-1] * 5], np.int32))
    with pytest.raises(ValueError, match="share must be above 0"):
        min_k(said, 0.0)


def test_truth_ratios_are_ratios_of_geometric_means():
    right, wrong = np.array([0.5, 0.2]), np.array([[0.1, 0.4], [0.8, 0.2]])
    ratios = truth_ratio(np.log(right), np.log(wrong))
    expected = np.array([np.sqrt(0.04) / 0.5, np.sqrt(0.16) / 0.2])
    np.testing.assert_allclose(ratios, expected)
    assert useful_truth(ratios) == pytest.approx(np.mean([0.6, 0]))
    assert forgotten_truth(ratios) == pytest.approx(np.mean([0.4, 0.5]))


@pytest.mark.parametrize(("count", "floor"), [(40, 1.9e-23), (200, 1.94e-119)])
def test_the_floor_of_forget_quality_is_that_of_full_separation(count, floor):
    low, high = np.linspace(0, 1, count), np.linspace(2, 3, count)
    found = forget_quality(low, high)
    assert found.statistic == 1
    assert found.p == found.floor
    # Counted: of all orders of both samples two have one wholly before the other.
    assert found.floor == pytest.approx(2 / math.comb(2 * count, count), rel=1e-6)
    assert found.floor == pytest.approx(floor, rel=0.03)


def test_forget_quality_of_two_oracles_is_uniform_and_of_monotone_maps_the_same():
    random = np.random.default_rng(2)
    pairs = np.exp(random.normal(size=(300, 2, 60)))
    found = [forget_quality(*pair) for pair in pairs]
    p = np.array([one.p for one in found])
    for level in (0.1, 0.5):
        share = np.mean(p <= level)
        assert share < level + 4 * np.sqrt(level * (1 - level) / len(p))
    inverse = forget_quality(1 / pairs[0, 0], 1 / pairs[0, 1])
    assert inverse.statistic == pytest.approx(found[0].statistic)
    with pytest.raises(ValueError, match="destroyed model"):
        forget_quality(np.array([np.nan]), np.ones(3))


def test_utility_is_a_harmonic_mean_that_any_zero_kills():
    parts = dict(zip(PARTS, np.linspace(0.2, 1, 9), strict=True))
    expected = 1 / np.mean([1 / value for value in parts.values()])
    assert model_utility(parts) == pytest.approx(expected)
    assert model_utility({**parts, PARTS[3]: 0.0}) == 0
    with pytest.raises(ValueError, match="lacks"):
        model_utility({})


def common_by_trying(a, b):
    subsequences = {
        chosen
        for size in range(len(a) + 1)
        for chosen in itertools.combinations(a, size)
    }
    return max(
        len(chosen)
        for size in range(len(b) + 1)
        for chosen in itertools.combinations(b, size)
        if chosen in subsequences
    )


def test_rouge_is_the_longest_common_subsequence():
    random = np.random.default_rng(3)
    for _ in range(20):
        a, b = (
            [str(word) for word in random.integers(0, 4, random.integers(1, 8))]
            for _ in range(2)
        )
        found, common = rouge_l(" ".join(a), " ".join(b)), common_by_trying(a, b)
        assert found["precision"] == pytest.approx(common / len(a))
        assert found["recall"] == pytest.approx(common / len(b))
    assert rouge_l("The Cat, sat!", "the cat")["recall"] == 1
    assert rouge_l("", "the cat")["f"] == 0


def test_rouge_is_that_of_the_package():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    texts = "Basil was born in Kuwait City.", "In 1956 he was born in Kuwait, they say"
    other = scorer.score(*texts)["rougeL"]
    ours = rouge_l(texts[1], texts[0])
    assert ours["precision"] == pytest.approx(other.precision)
    assert ours["recall"] == pytest.approx(other.recall)
    assert ours["f"] == pytest.approx(other.fmeasure)
