import numpy as np
import pytest
from scipy import stats

from unlearn_jax.evaluation.datamodelling_score import (
    attainable,
    correlation,
    correlations,
    group_effects,
    leave_one_out_score,
    linear_datamodelling_score,
    score,
)

QUERIES, COUNT, SUBSETS = 20, 30, 60


def subsets(rng, models, share=0.5):
    masks = np.zeros((models, COUNT))
    for row in masks:
        row[rng.permutation(COUNT)[: round(share * COUNT)]] = 1
    return masks


@pytest.fixture(scope="module")
def linear():
    """A classifier after one step of gradient descent from zero: linear in weights."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(COUNT, 8))
    targets = rng.choice([-1.0, 1.0], COUNT)
    queries = rng.normal(size=(QUERIES, 8))

    def train(masks):
        return queries @ ((masks * targets) @ inputs).T

    return train, queries @ (inputs * targets[:, None]).T


def test_correlations_are_those_of_scipy_with_ties():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 5, (6, 12)).astype(float)
    b = a + rng.integers(0, 5, (6, 12))
    for ranks, reference in ((False, stats.pearsonr), (True, stats.spearmanr)):
        expected = np.array([reference(x, y)[0] for x, y in zip(a, b, strict=True)])
        found = correlations(a, b, ranks=ranks)
        np.testing.assert_allclose(found, expected)
        np.testing.assert_allclose(correlation(a, b, ranks=ranks), np.mean(expected))


def test_queries_without_spread_are_left_out():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 4, 9))
    a[1], b[2] = 3.0, 3.0
    kept = [0, 3]
    found = correlation(a, b, ranks=True)
    np.testing.assert_allclose(found, correlation(a[kept], b[kept], ranks=True))
    assert np.isnan(correlations(a, b, ranks=True)).tolist() == [0, 1, 1, 0]


def test_the_true_datamodel_of_a_linear_problem_scores_one(linear):
    train, effects = linear
    rng = np.random.default_rng(3)
    masks = subsets(rng, SUBSETS)
    found = linear_datamodelling_score(
        group_effects(effects, masks), train(masks), bootstrap=20
    )
    np.testing.assert_allclose(found, (1.0, 0.0), atol=1e-9)
    np.testing.assert_allclose(
        leave_one_out_score(
            effects,
            np.arange(COUNT),
            train(1.0 - np.eye(COUNT)) - train(np.ones((1, COUNT))),
            bootstrap=20,
        ),
        (1.0, 0.0),
        atol=1e-9,
    )


def test_a_datamodel_regressed_from_other_subsets_scores_one(linear):
    train, _ = linear
    rng = np.random.default_rng(4)
    seen, fresh = subsets(rng, 3 * COUNT), subsets(rng, SUBSETS)
    regressed = np.linalg.lstsq(seen, train(seen).T, rcond=None)[0].T
    found = linear_datamodelling_score(group_effects(regressed, fresh), train(fresh))
    assert found.value > 1 - 1e-9


def test_effects_that_say_nothing_score_zero_within_their_error(linear):
    train, effects = linear
    rng = np.random.default_rng(5)
    masks = subsets(rng, SUBSETS)
    wrong = rng.normal(size=effects.shape)
    found = linear_datamodelling_score(group_effects(wrong, masks), train(masks))
    assert 0.01 < found.stderr < 0.2
    assert abs(found.value) < 4 * found.stderr
    opposite = group_effects(-effects, masks)
    assert linear_datamodelling_score(opposite, train(masks)).value < -1 + 1e-9


def test_the_bootstrap_error_is_the_spread_over_new_queries_and_models():
    def drawn(rng):
        # each query has an agreement of its own, models are drawn anew
        strength = rng.uniform(0.0, 1.5, (15, 1))
        true = rng.normal(size=(15, 30))
        return strength * true + rng.normal(size=(15, 30)), true

    rng = np.random.default_rng(6)
    found = [score(*drawn(rng), ranks=False, bootstrap=40, seed=i) for i in range(100)]
    deviation = np.std([f.value for f in found], ddof=1)
    claimed = np.sqrt(np.mean([f.stderr**2 for f in found]))
    # the deviation of 100 values is known to 7%; resampling a subset of 30 models
    # twice over adds some noise of its own
    assert 0.8 < claimed / deviation < 1.6


@pytest.mark.parametrize("runs", [2, 4, 5])
def test_the_true_datamodel_reaches_what_is_attainable_and_no_more(linear, runs):
    train, effects = linear
    rng = np.random.default_rng(runs)
    masks = subsets(rng, 200)
    clean = train(masks)
    noise = 2.0 * clean.std(axis=1)[None, :, None]
    retrained = clean + noise * rng.normal(size=(runs, *clean.shape))
    ceiling = attainable(retrained, splits=6, bootstrap=20)
    reached = linear_datamodelling_score(
        group_effects(effects, masks), retrained.mean(axis=0), bootstrap=20
    )
    # signal 1 and noise 4 / runs; ranks lose a few percent of the correlation
    np.testing.assert_allclose(reached.value, 1 / np.sqrt(1 + 4 / runs), rtol=0.1)
    error = np.hypot(ceiling.stderr, reached.stderr)
    assert abs(ceiling.value - reached.value) < 4 * error + 0.02
    assert error < 0.08


def test_runs_that_agree_attain_one_and_noise_nothing(linear):
    train, _ = linear
    rng = np.random.default_rng(7)
    clean = train(subsets(rng, SUBSETS))
    same = np.stack([clean] * 3)
    np.testing.assert_allclose(attainable(same, bootstrap=5), (1.0, 0.0), atol=1e-9)
    noise = attainable(rng.normal(size=(4, 20, 400)), bootstrap=20)
    assert noise.value < 0.3


def test_a_generator_is_read_on_and_a_seed_repeats():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, 5, 10))
    one = score(a, b, ranks=True, bootstrap=5, seed=3)
    assert score(a, b, ranks=True, bootstrap=5, seed=3) == one
    stream = np.random.default_rng(3)
    assert score(a, b, ranks=True, bootstrap=5, seed=stream) == one
    assert score(a, b, ranks=True, bootstrap=5, seed=stream) != one
    assert np.isnan(score(a, b, ranks=True, bootstrap=1).stderr)


def test_what_makes_no_sense_is_refused():
    rng = np.random.default_rng(9)
    good = rng.normal(size=(3, 4))
    with pytest.raises(ValueError, match=r"expected \(queries, models\)"):
        linear_datamodelling_score(good, good[:, :3])
    with pytest.raises(ValueError, match="no query of 3 has spread over 4 models"):
        linear_datamodelling_score(good, np.ones((3, 4)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        linear_datamodelling_score(good, good + np.nan)
    with pytest.raises(ValueError, match=r"masks of shape \(models, 4\)"):
        group_effects(good, np.ones((2, 3)))
    with pytest.raises(ValueError, match="at least twice"):
        attainable(good[None])
