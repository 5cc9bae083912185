"""Fisher merging: the exact minimiser of the sum of quadratic forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods.finetune import finetune
from unlearn_jax.methods.fisher_merging import fisher_merging
from unlearn_jax.methods.merging import fisher_merge
from unlearn_jax.train.objective import bind

LIKE = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(2)}
WEIGHTS = [0.2, 0.5, 1.3]


@pytest.fixture(scope="module")
def models():
    keys = jax.random.split(jax.random.key(0), 6)
    params = [tree.random_like(k, LIKE, jax.random.normal) for k in keys[:3]]
    fishers = [tree.random_like(k, LIKE, jax.random.uniform) for k in keys[3:]]
    return params, fishers


def test_the_merge_minimises_the_sum_of_the_quadratic_forms(models):
    params, fishers = models

    def energy(theta):
        gaps = [tree.subtract(theta, p) for p in params]
        forms = [
            tree.dot(jax.tree.map(jnp.multiply, f, g), g)
            for f, g in zip(fishers, gaps, strict=True)
        ]
        return sum(w * form for w, form in zip(WEIGHTS, forms, strict=True))

    merged = fisher_merge(params, fishers, WEIGHTS)
    slope = jax.grad(energy)(merged)
    assert_trees_close(slope, tree.zeros_like(slope), atol=1e-14)


def test_a_model_merged_with_itself_is_itself(models):
    params, fishers = models
    merged = fisher_merge([params[0]] * 3, fishers, WEIGHTS)
    assert_trees_close(merged, params[0], rtol=1e-14)


def test_where_nothing_is_known_the_weights_alone_decide(models):
    params, fishers = models
    nothing = [tree.zeros_like(f) for f in fishers]
    merged = fisher_merge(params, nothing, WEIGHTS)
    plain = jax.tree.map(
        lambda *p: np.average(np.stack(p), axis=0, weights=WEIGHTS), *params
    )
    assert_trees_close(merged, plain, rtol=1e-14, dtypes=False)


def test_missing_fishers_are_refused(models):
    params, fishers = models
    with pytest.raises(ValueError, match="got 3 models, 2 Fishers and 3 weights"):
        fisher_merge(params, fishers[:2], WEIGHTS)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_method_merges_the_original_with_the_tuned_model(
    original, request_a, share
):
    learner = tiny.learner("mlp")
    options = {"epochs": 1, "learning_rate": 0.1, "batch_size": 8}
    run = tiny.quick_jit(
        lambda *a: [
            method.forget(jax.random.key(3), (), *a)[0].params
            for method in (
                finetune(learner, **options),
                fisher_merging(learner, share=share, **options),
            )
        ]
    )
    tuned, merged = run(original, request_a)
    objective = bind(learner.model, {}, learner.loss)
    kept = np.asarray(request_a.retain.weights) > 0

    def stiffness(params):
        slopes = jax.jacobian(objective.example_losses)(params, request_a.retain)
        return jax.tree.map(lambda s: np.mean(s[kept] ** 2, axis=0) + 1e-6, slopes)

    def mix(o, t, f, g):
        return ((1 - share) * f * o + share * g * t) / ((1 - share) * f + share * g)

    start = original.params
    expected = jax.tree.map(mix, start, tuned, stiffness(start), stiffness(tuned))
    assert_trees_close(merged, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"partner": "scrub"}, "partner 'scrub' is unknown; choose from finetune"),
        ({"share": 1.5}, "share must be from 0 to 1"),
        ({"floor": 0.0}, "floor must be positive"),
    ],
)
def test_impossible_merges_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fisher_merging(tiny.learner("mlp"), **options)
