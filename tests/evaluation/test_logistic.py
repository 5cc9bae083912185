import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from unlearn_jax.evaluation.logistic import fit_logistic, log_odds


def _problem(case):
    rng = np.random.default_rng(0)
    member = np.arange(240) < 60
    feature = {
        "overlapping": rng.normal(size=240) - 0.7 * member,
        "heavy tails": rng.pareto(0.7, size=240) + 3.0 * member,
        "separable": rng.normal(size=240) + 20.0 * member,
        "uninformative": rng.normal(size=240),
    }[case]
    return feature * 50.0 + 7.0, member


@pytest.mark.parametrize(
    "case", ["overlapping", "heavy tails", "separable", "uninformative"]
)
def test_fit_equals_scikit_learns_balanced_regression(case):
    feature, member = _problem(case)
    model = fit_logistic(feature, member)
    x = ((feature - feature.mean()) / feature.std())[:, None]
    reference = LogisticRegression(class_weight="balanced", tol=1e-10, max_iter=1000)
    reference.fit(x, member)
    np.testing.assert_allclose(
        model.slope, reference.coef_.item(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        log_odds(model, feature), reference.decision_function(x), rtol=1e-3, atol=1e-4
    )


def test_gradient_vanishes_at_the_fit():
    feature, member = _problem("heavy tails")
    model = fit_logistic(feature, member)
    x = (feature - model.centre) / model.spread
    weight = np.where(member, 240 / (2 * 60), 240 / (2 * 180))
    slack = weight * (1 / (1 + np.exp(-log_odds(model, feature))) - member)
    assert abs(np.sum(slack * x) + model.slope) < 1e-5
    assert abs(np.sum(slack)) < 1e-5


def test_a_constant_feature_gives_even_odds():
    model = fit_logistic(np.full(10, 0.1), np.arange(10) < 3)
    np.testing.assert_array_equal(log_odds(model, np.full(4, 0.1)), np.zeros(4))


def test_unit_of_the_feature_does_not_matter():
    feature, member = _problem("overlapping")
    a = log_odds(fit_logistic(feature, member), feature)
    b = log_odds(fit_logistic(1e6 * feature, member), 1e6 * feature)
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_an_empty_class_is_refused():
    with pytest.raises(ValueError, match="both members and non-members"):
        fit_logistic(np.arange(3.0), np.ones(3, bool))
