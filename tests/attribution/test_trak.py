"""TRAK against its formula with every matrix written out, and its laws."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.attribution.attribution import Evidence
from unlearn_jax.attribution.output_functions import (
    OUTPUT_FUNCTIONS,
    component,
    margin,
)
from unlearn_jax.attribution.projection import signs
from unlearn_jax.attribution.trak import trak
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.operator import dense
from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Batch

COUNT, QUERIES, ABSENT = 12, 5, 3
OUTPUTS = {**OUTPUT_FUNCTIONS, "component": component(1)}


class Problem:
    """Two models; training examples of uneven weight, one absent and NaN."""

    def __init__(self, net, *, loss=cross_entropy, l2=0.0, dtype=jnp.float64, models=2):
        self.learner = tiny.learner(net, dtype, loss=loss, l2=l2)
        self.models = jax.vmap(self.learner.model.init)(
            jax.random.split(jax.random.key(4), models)
        )
        self.evidence = Evidence(self.models)
        random = np.random.default_rng(3)
        data = tiny.examples(dtype, count=COUNT + QUERIES)
        targets = data.targets
        if loss is squared_error:
            targets = random.standard_normal((COUNT + QUERIES, 3)).astype(dtype)
        weights = random.uniform(0.5, 2.0, COUNT + QUERIES).astype(dtype)
        weights[[ABSENT, COUNT + 1]] = 0
        inputs = data.inputs.copy()
        inputs[[ABSENT, COUNT + 1]] = np.nan
        whole = Batch(inputs, targets, weights)
        self.train = Batch(*(leaf[:COUNT] for leaf in whole))
        self.queries = Batch(*(leaf[COUNT:] for leaf in whole))
        self.kept = np.flatnonzero(self.train.weights)
        self.asked = np.flatnonzero(self.queries.weights)

    def at(self, number):
        variables = jax.tree.map(lambda leaf: leaf[number], self.models)
        flat, unravel = jax.flatten_util.ravel_pytree(variables.params)
        return bind(self.learner.model, variables.stats, self.learner.loss), (
            flat,
            unravel,
        )

    def slopes(self, number, function, batch, rows):
        """(rows, p) gradients of one number per example, formed."""
        objective, (flat, unravel) = self.at(number)
        batch = Batch(*(jnp.asarray(leaf[rows]) for leaf in batch))

        def values(theta):
            outputs = objective.predict(unravel(theta), batch.inputs)
            return function(outputs, batch.targets)

        found = tiny.quick_jit(lambda x: (jax.jacrev(values)(x), values(x)))(flat)
        return tuple(np.asarray(leaf, np.float64) for leaf in found)

    def spread(self, scores):
        """Scores of the present pairs, zero elsewhere."""
        full = np.zeros((QUERIES, COUNT))
        full[np.ix_(self.asked, self.kept)] = scores
        return full

    def gauss_newton_effects(self, number, function):
        """−∇f (GGN + l2)⁻¹ ∇ℓₙ / W, the matrix from another module."""
        objective, (flat, unravel) = self.at(number)
        batch = Batch(*(jnp.asarray(leaf[self.kept]) for leaf in self.train))
        matrix = np.asarray(dense(gauss_newton(objective, unravel(flat), batch)))
        matrix = matrix + self.learner.l2 * np.eye(len(matrix))
        losses, _ = self.slopes(number, self.learner.loss, self.train, self.kept)
        own, _ = self.slopes(number, function, self.queries, self.asked)
        mass = self.train.weights.sum()
        return self.spread(-own @ np.linalg.solve(matrix, losses.T) / mass)


def explain(problem, functions, moved=None, later=None, **settings):
    """Keys, effects on each function, and the change, by one compiled program.

    ``later``: the training examples after prepare, when some may have been forgotten.
    """
    attribution = trak(problem.learner, batch_size=5, query_batch_size=2, **settings)

    @jax.jit
    def run(key, evidence, train, later, queries, moved):
        state = attribution.prepare(key, evidence, train)
        train = later
        scores = {
            name: attribution.effects(state, train, queries, function)
            for name, function in functions.items()
        }
        if moved is not None:
            moved = attribution.change(state, train, queries, moved)
        return getattr(state, "keys", key), scores, moved

    key = jax.random.key(7)
    later = problem.train if later is None else later
    return run(key, problem.evidence, problem.train, later, problem.queries, moved)


def written_signs(key, params, width):
    """(p, width) of all leaves, over √width, in the order of flat parameters."""
    blocks = [
        signs(
            jax.random.fold_in(key, leaf),
            jnp.arange(value.size, dtype=jnp.uint32),
            width,
        )
        for leaf, value in enumerate(jax.tree.leaves(params))
    ]
    return np.concatenate([np.asarray(b, np.float64) for b in blocks]) / np.sqrt(width)


@pytest.mark.parametrize(
    "dtype", [jnp.float64, pytest.param(jnp.float32, marks=pytest.mark.slow)]
)
def test_scores_equal_explicitly_projected_gradients(dtype):
    net = "softmax" if dtype == jnp.float64 else "mlp"
    problem, width, damping = Problem(net, dtype=dtype), 9, 0.05
    functions = OUTPUTS if dtype == jnp.float64 else {"margin": margin}
    keys, found, _ = explain(
        problem, functions, width=width, projection="dense", damping=damping
    )
    weights = np.asarray(problem.train.weights[problem.kept], np.float64)
    products, shares = {name: [] for name in functions}, []
    for number in range(2):
        params = jax.tree.map(lambda leaf, n=number: leaf[n], problem.models.params)
        matrix = written_signs(keys[number], params, width)
        slopes, odds = problem.slopes(number, margin, problem.train, problem.kept)
        rows = slopes @ matrix
        kernel = (weights[:, None] * rows).T @ rows
        kernel += damping * np.trace(kernel) / width * np.eye(width)
        solved = np.linalg.solve(kernel, rows.T)
        shares.append(1 / (1 + np.exp(odds)))
        for name, function in functions.items():
            own, _ = problem.slopes(number, function, problem.queries, problem.asked)
            products[name].append(own @ matrix @ solved)
    for name in functions:
        # Features' products and the factors 1 − p are averaged apart.
        expected = np.mean(products[name], axis=0) * np.mean(shares, axis=0)[None]
        scale = np.abs(expected).max() * (1e-5 if dtype == jnp.float32 else 1e-10)
        assert found[name].dtype == dtype
        np.testing.assert_allclose(
            found[name], problem.spread(expected), rtol=0, atol=scale, err_msg=name
        )


@pytest.mark.parametrize(
    ("loss", "form"),
    [(cross_entropy, "none"), (cross_entropy, "gram"), (squared_error, "none")],
)
def test_all_outputs_without_projection_are_gauss_newton_influence(loss, form):
    problem = Problem("softmax", loss=loss, l2=0.1, models=1)
    function = component(2)
    settings = {"projection": form, "kernel": "outputs", "damping": 0.0}
    _, found, _ = explain(problem, {"it": function}, **settings)
    np.testing.assert_allclose(
        found["it"],
        problem.gauss_newton_effects(0, function),
        rtol=1e-8,
        atol=1e-12,
    )


def test_of_two_classes_the_newton_kernel_is_the_gauss_newton_matrix():
    problem = Problem("softmax", l2=0.1)
    model = problem.learner.model

    def two(variables, inputs):
        return model.apply(variables, inputs)[:, :2]

    problem.learner = problem.learner._replace(model=model._replace(apply=two))
    problem.train = problem.train._replace(targets=problem.train.targets % 2)
    problem.queries = problem.queries._replace(targets=problem.queries.targets % 2)
    settings = {"projection": "none", "kernel": "newton", "damping": 0.0}
    _, found, _ = explain(problem, {"margin": margin}, **settings)
    expected = [problem.gauss_newton_effects(number, margin) for number in range(2)]
    expected = np.mean(expected, axis=0)
    np.testing.assert_allclose(found["margin"], expected, rtol=1e-8, atol=1e-12)


def padded(batch):
    """Three examples more, of no weight."""
    inputs, targets, weights = (np.concatenate([leaf, leaf[-3:]]) for leaf in batch)
    inputs[-3:], weights[-3:] = np.nan, 0
    return Batch(inputs, targets, weights)


def test_the_gram_form_is_the_form_without_projection_whatever_is_not_there():
    """Also of examples that are padding, or were forgotten since ``prepare``."""
    problem, scores, moves = Problem("softmax", l2=1e-2), [], []
    moved = np.random.default_rng(5).standard_normal(COUNT)
    later = problem.train.weights.copy()
    later[0] = 0
    later = problem.train._replace(weights=later)
    for form in ("none", "gram"):
        settings = {"projection": form, "kernel": "newton", "damping": 0.02}
        _, found, change = explain(
            problem, {"margin": margin}, moved, later, **settings
        )
        scores.append(found["margin"][:, :COUNT])
        moves.append(change)
        problem.train, later = padded(problem.train), padded(later)
        moved = np.pad(moved, (0, 3))
    assert not np.any(scores[0][:, 0])
    for ours, theirs in (scores[::-1], moves[::-1]):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9 * scale)
        assert scale > 0


@pytest.mark.parametrize(
    ("form", "kernel", "centred"),
    [
        ("sketch", "margin", True),
        ("gram", "outputs", True),
    ],
)
def test_change_is_effects_times_change_of_weights(form, kernel, centred):
    problem = Problem("softmax")
    settings = {"projection": form, "kernel": kernel, "centred": centred, "width": 16}
    moved = np.random.default_rng(5).standard_normal(COUNT)
    _, found, change = explain(problem, {"it": component(1)}, moved, **settings)
    scores = found["it"]
    assert change.shape == (QUERIES, 3)
    np.testing.assert_allclose(change[:, 1], scores @ moved, rtol=1e-8, atol=1e-10)
    assert np.abs(scores).max() > 0
    if centred:
        means = scores @ problem.train.weights
        np.testing.assert_allclose(means, 0, atol=1e-9 * np.abs(scores).max())


def test_bad_settings_are_refused_when_built():
    learner = tiny.learner("softmax")
    with pytest.raises(ValueError, match=r"projection 'fast' is unknown.*sketch"):
        trak(learner, projection="fast")
    with pytest.raises(ValueError, match=r"kernel 'logit' is unknown.*margin"):
        trak(learner, kernel="logit")
    with pytest.raises(ValueError, match="made for the loss cross_entropy"):
        trak(tiny.learner("softmax", loss=squared_error))
    with pytest.raises(ValueError, match="damping must not be negative"):
        trak(learner, damping=-1.0)
