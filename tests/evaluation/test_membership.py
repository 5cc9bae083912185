import jax
import numpy as np
import pytest
from synthetic_outputs import mean_within, model, scores

from unlearn_jax.evaluation.confidence import confidence_attack
from unlearn_jax.evaluation.lira import lira_attack, lira_scores
from unlearn_jax.evaluation.membership import (
    logistic_attack,
    logistic_entropy_attack,
    logistic_loss_attack,
    loss_attack,
    threshold_attack,
)
from unlearn_jax.evaluation.outputs import Scores, SplitOutputs, stack_members

OWN = [loss_attack, logistic_loss_attack, logistic_entropy_attack]
KEYS = jax.random.split(jax.random.key(7), 250)


@pytest.mark.parametrize("attack", OWN)
def test_models_that_never_saw_the_forget_set_give_one_half(attack):
    # 250 models; AUC's s.e. is about 0.003, the balanced accuracy's 0.25 %
    rng = np.random.default_rng(0)
    found = [attack(key, model(rng)) for key in KEYS]
    mean_within([a.auc for a in found], 0.5)
    mean_within([a.balanced_accuracy for a in found], 50.0)


@pytest.mark.parametrize("members", [1, 3, 20])
def test_likelihood_ratio_between_oracles_gives_one_half(members):
    # Forget points are harder than unseen ones for every oracle alike: the ratio
    # knows, so the AUC is 0.5 with an s.e. of about 0.004 over 120 oracles.
    rng = np.random.default_rng(1)
    found = []
    for key in KEYS[:120]:
        like = model(rng, forget_lead=0.0)
        others = [model(rng, forget_lead=0.0, like=like) for _ in range(members)]
        found.append(lira_attack(key, like, stack_members(others)))
    mean_within([a.auc for a in found], 0.5)
    mean_within([a.balanced_accuracy for a in found], 50.0)


@pytest.mark.parametrize("attack", OWN)
def test_a_fitted_forget_set_is_found(attack):
    rng = np.random.default_rng(2)
    found = attack(KEYS[0], model(rng, forget_lead=4.0))
    assert found.auc > 0.5 + 4.0 * found.auc_error
    assert found.balanced_accuracy > 60.0
    assert found.tpr_at_1_percent >= found.tpr_at_0_1_percent


def test_likelihood_ratio_finds_what_difficulty_hides():
    # forget points are hard, and the target fits them as well as unseen ones
    rng = np.random.default_rng(3)
    target = model(rng)
    others = [model(rng, forget_lead=-2.0, like=target) for _ in range(20)]
    found = lira_attack(KEYS[0], target, stack_members(others))
    plain = loss_attack(KEYS[0], target)
    assert found.auc > 0.5 + 4.0 * found.auc_error
    assert abs(plain.auc - 0.5) < 4.0 * plain.auc_error


def test_threshold_points_one_way_and_regression_both_ways():
    rng = np.random.default_rng(4)
    low, high = rng.normal(0.0, 1.0, 100), rng.normal(2.0, 1.0, 100)
    assert threshold_attack(KEYS[0], low, high).auc < 0.2
    assert logistic_attack(KEYS[0], low, high).auc > 0.8


def _constant(split):
    return SplitOutputs(*(Scores(np.zeros_like(s.outputs), s.targets) for s in split))


def test_constant_outputs_tell_nothing_to_any_attack():
    split = _constant(model(np.random.default_rng(5)))
    attacks = [attack(KEYS[0], split) for attack in OWN]
    for m in (1, 3, 20):
        attacks.append(lira_attack(KEYS[0], split, stack_members([split] * m)))
    for found in attacks:
        assert found == (0.5, 0.0, 50.0, 0.0, 0.0)
    assert confidence_attack(KEYS[0], split) == 50.0


def test_the_same_key_gives_the_same_attack_and_another_key_other_folds():
    split = model(np.random.default_rng(6), forget_lead=1.5)
    for attack in OWN:
        assert attack(KEYS[0], split) == attack(KEYS[0], split)
        drawn = {attack(key, split).balanced_accuracy for key in KEYS[:5]}
        assert len(drawn) > 1


def test_few_examples_take_fewer_folds_and_too_few_are_refused():
    found = logistic_attack(KEYS[0], np.arange(4.0), np.arange(4.0) + 10.0)
    assert found.auc == 1.0
    with pytest.raises(ValueError, match="four members"):
        logistic_attack(KEYS[0], np.arange(3.0), np.arange(9.0))
    with pytest.raises(ValueError, match="2 members"):
        threshold_attack(KEYS[0], np.arange(1.0), np.arange(9.0))


def test_likelihood_ratio_scores_are_standardised_by_hand():
    few = np.array([[0.0, 10.0], [2.0, 14.0]])  # variances 2 and 8: pooled 5
    z = lira_scores(np.array([3.0, 12.0]), few)
    np.testing.assert_allclose(z, [2.0 / np.sqrt(5.0), 0.0])
    many = np.repeat(few, 8, axis=0)  # 16 members: each point its own deviation
    z = lira_scores(np.array([3.0, 16.0]), many)
    np.testing.assert_allclose(z, [2.0, 4.0] / np.sqrt([16.0 / 15.0, 64.0 / 15.0]))
    np.testing.assert_allclose(lira_scores(np.array([3.0]), np.array([[1.0]])), [2.0])


def test_references_without_a_member_axis_are_refused():
    split = model(np.random.default_rng(8))
    with pytest.raises(ValueError, match=r"expected \(members, examples\)"):
        lira_attack(KEYS[0], split, split)


def test_confidence_attack_judges_a_confident_forget_set_seen():
    rng = np.random.default_rng(9)
    retained, unknown = scores(rng, 300, lead=9.0), scores(rng, 300, lead=-3.0)
    kept = SplitOutputs(retained, scores(rng, 50, lead=9.0), unknown, unknown)
    forgot = kept._replace(forget=scores(rng, 50, lead=-3.0))
    assert confidence_attack(KEYS[0], kept) < 10.0
    assert confidence_attack(KEYS[0], forgot) > 90.0


def test_confidence_attack_as_published_equals_scikit_learn_by_hand():
    from sklearn.svm import SVC

    from unlearn_jax.evaluation.outputs import confidences

    split = model(np.random.default_rng(10), lead=1.5)
    split = split._replace(retain=scores(np.random.default_rng(11), 200, lead=3.0))
    tests = confidences(split.test)
    feature = np.concatenate([confidences(split.retain)[:120], tests])[:, None]
    machine = SVC(C=3, gamma="auto", kernel="rbf").fit(feature, np.arange(240) < 120)
    judged = machine.predict(confidences(split.forget)[:, None])
    want = 100.0 * np.mean(judged == 0)
    assert confidence_attack(KEYS[0], split, as_published=True) == pytest.approx(want)
    assert confidence_attack(KEYS[1], split, as_published=True) == pytest.approx(want)


def test_confidence_attack_draws_no_more_than_the_cap():
    split = model(np.random.default_rng(12), lead=2.0)
    capped = {confidence_attack(key, split, cap=10) for key in KEYS[:6]}
    assert len(capped) > 1
