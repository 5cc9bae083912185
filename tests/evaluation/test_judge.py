"""The judge on images it should and should not answer for, and its accuracies."""

import jax
import numpy as np
import pytest

from unlearn_jax.data.canvas import digit_canvas
from unlearn_jax.evaluation.frechet import frechet
from unlearn_jax.evaluation.judge import REJECTED, erasure, fit_judge, judged
from unlearn_jax.models import MODELS
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch


@pytest.fixture(scope="module")
def made():
    drawn = digit_canvas(styles=("plain", "inverted"))
    recipe = Recipe(
        epochs=6, batch_size=64, learning_rate=3e-3, optimizer="adam", weight_decay=0.0
    )
    learner = Learner(
        MODELS["mlp"]((8, 8, 1), 10, widths=(64,)), cross_entropy, 0.0, recipe
    )
    train, test = drawn.dataset.splits
    odd = drawn.test_bases % 2 == 1
    held, fresh = (Batch(*(leaf[own] for leaf in test)) for own in (odd, ~odd))
    groups = np.asarray(train.targets) * 2 + drawn.dataset.subclasses
    judge = fit_judge(jax.random.key(0), learner, train, held, groups)
    see = jax.jit(lambda images: judged(judge, images))
    return learner, train, groups, held, fresh, see


def test_it_tells_unseen_digits_and_is_silent_about_what_is_none(made):
    _, train, groups, _, fresh, see = made
    told = np.asarray(see(fresh.inputs))
    there = told != REJECTED
    assert 0.88 < there.mean() < 1
    assert np.mean(told[there] == fresh.targets[there]) > 0.97
    random = np.random.default_rng(0)
    size = fresh.inputs.shape
    noise = random.uniform(-1, 1, size).astype(np.float32)
    means = np.stack([train.inputs[groups == g].mean(0) for g in range(20)])
    average = np.resize(means, size)
    blurred = fresh.inputs + 0.5 * noise
    for strange in (noise, average, blurred):
        assert np.mean(np.asarray(see(strange)) == REJECTED) > 0.9


def test_what_cannot_be_judged_is_refused(made):
    learner, train, groups, held, *_ = made
    for options in ({"accepted": 1.5}, {"least": 1.0}):
        with pytest.raises(ValueError, match="rejects everything judges nothing"):
            fit_judge(jax.random.key(0), learner, train, held, groups, **options)
    few = Batch(*(leaf[:2] for leaf in train))
    with pytest.raises(ValueError, match="2 images in 2 groups"):
        fit_judge(jax.random.key(0), learner, few, held, np.arange(2))


def test_accuracies_count_by_hand():
    asked = [0, 0, 0, 0, 1, 1, 2, 2]
    seen = [0, 1, 1, REJECTED, 1, 2, 2, REJECTED]
    styles = [0, 1, 0, 1, 0, 1, 0, 1]
    styles_seen = [0, 1, 1, REJECTED, 0, 1, 0, 0]
    found = erasure(
        asked, seen, target=0, classes=3, other_asked=styles, other_seen=styles_seen
    )
    assert (found.unlearned, found.in_domain) == (0.75, 0.5)
    assert (found.cross_domain, found.cross_forgotten) == (0.75, 0.5)
    np.testing.assert_array_equal(found.went, [0.25, 0.5, 0, 0.25])
    assert found.rejected == 0.25
    with pytest.raises(ValueError, match="ask for 7"):
        erasure(asked, seen, target=7, classes=3, other_asked=styles, other_seen=seen)


def test_frechet_is_known_for_gaussians_of_one_axis():
    random = np.random.default_rng(0)
    base = random.normal(size=(500, 3))
    base = (base - base.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(base.T))).T
    scales, shift = np.array([1.0, 2.0, 0.5]), np.array([0.0, 3.0, 0.0])
    found = frechet(base, base * scales + shift)
    assert found == pytest.approx(9 + np.sum((1 - scales) ** 2))
    assert frechet(base, base) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="draw more images"):
        frechet(base, base[:1])
