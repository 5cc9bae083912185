"""What Newton's step says removal does to margins, against nets trained without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax import tree
from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.data import synthetic
from unlearn_jax.methods import make_request
from unlearn_jax.methods.newton_removal import newton_removal
from unlearn_jax.models import mlp
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe

RUNS, FORGOTTEN = 16, 24


def changes(features, epochs, learning_rate):
    """(losses before, true and predicted changes) of forgotten margins, (runs, f)."""
    dataset = synthetic.gaussian_classes(
        0, (240, 1), classes=3, features=features, separation=1.0
    )
    data = jax.tree.map(jnp.asarray, dataset.splits.train)
    recipe = Recipe(epochs, 24, learning_rate)
    learner = Learner(mlp((features,), 3, widths=(16,)), cross_entropy, 0.0, recipe)
    gone = np.random.default_rng(0).choice(len(data.targets), FORGOTTEN, False)
    request = make_request(data, gone)
    method = newton_removal(learner)
    keys = jax.random.split(jax.random.key(0), RUNS)

    @tiny.quick_jit
    def run(keys, data, request):
        def one(key):
            original = fit(key, learner, data)
            oracle = fit(key, learner, request.retain)
            unlearned, _ = method.forget(key, (), original, request)
            return original, oracle, unlearned

        def outputs(variables):
            return learner.model.apply(variables, request.forget.inputs)

        models = jax.vmap(one)(keys)
        found = [jax.vmap(outputs)(each) for each in models]
        margins = [
            jax.vmap(lambda o: margin(o, request.forget.targets))(each)
            for each in found
        ]
        losses = jax.vmap(lambda o: cross_entropy(o, request.forget.targets))(found[0])
        return tree.all_finite(models), losses, *margins

    finite, losses, original, oracle, unlearned = run(keys, data, request)
    assert finite
    there = np.asarray(request.forget.weights) > 0
    kept = [np.asarray(x)[:, there] for x in (losses, original, oracle, unlearned)]
    return kept[0], kept[2] - kept[1], kept[3] - kept[1]


def means(change):
    """Mean over the forget set, and its standard error over runs."""
    by_run = change.mean(axis=1)
    return by_run.mean(), by_run.std(ddof=1) / np.sqrt(RUNS)


@pytest.mark.parametrize("interpolates", [False, True])
def test_the_predicted_change_has_the_sign_and_size_of_the_truth(interpolates):
    setting = (20, 100, 0.2) if interpolates else (10, 20, 0.05)
    losses, true, found = changes(*setting)
    (truth, error), (predicted, spread) = means(true), means(found)
    ratio = predicted / truth
    assert truth < -4 * error
    assert predicted < -4 * spread
    correlation = np.corrcoef(true.mean(axis=0), found.mean(axis=0))[0, 1]
    if interpolates:
        # Next to no slope is left in what is known by heart: the step is too short.
        assert losses.mean() < 0.05
        assert 0.03 < ratio < 0.6
        assert correlation > 0.25
    else:
        assert losses.mean() > 0.3
        assert 0.6 < ratio < 1.3
        assert correlation > 0.8
