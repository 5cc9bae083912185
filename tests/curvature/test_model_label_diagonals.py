"""Fisher under the model's labels, exact and drawn, and the Gauss-Newton diagonal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.curvature.diagonal import (
    fisher_diagonal,
    gauss_newton_diagonal,
    sampled_fisher_diagonal,
)
from unlearn_jax.train.loss import sequence_nll, squared_error
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.types import Batch

COUNT = 12


class Dense:
    """Outputs, their Jacobian, and weights, for a small net."""

    def __init__(self, net):
        learner = tiny.learner(net)
        init = learner.model.init(jax.random.key(3))
        stats = jax.tree.map(lambda leaf: leaf + 0.3, init.stats)
        self.params = init.params
        self.objective = bind(learner.model, stats, learner.loss, l2=0.7)
        weights = np.random.default_rng(2).uniform(0.1, 2.0, COUNT)
        weights[[0, 5]] = 0
        data = tiny.examples(count=COUNT)._replace(weights=weights)
        self.share = weights / weights.sum()
        inputs = data.inputs.copy()  # NaN follows, and JAX may share memory
        self.outputs = np.array(self.objective.predict(self.params, inputs))
        jacobian = tiny.quick_jit(jax.jacrev(self.objective.predict))
        self.jacobian = jax.tree.map(np.asarray, jacobian(self.params, inputs))
        data.inputs[0] = np.nan  # weight zero: never seen
        self.data = data

    def quadratic(self, matrices):
        """Σ share_n diag(J_nᵀ M_n J_n) for k × k matrices M_n."""
        kept = self.share > 0

        def leaf(j):
            flat = j.reshape(COUNT, tiny.CLASSES, -1)[kept]
            values = np.einsum(
                "n,nkp,nkl,nlp->p", self.share[kept], flat, matrices[kept], flat
            )
            return values.reshape(j.shape[2:])

        return jax.tree.map(leaf, self.jacobian)

    def softmax(self):
        return np.asarray(jax.nn.softmax(self.outputs))


@pytest.fixture(scope="module", params=["softmax", "mlp", "norm"])
def dense(request):
    return Dense(request.param)


@pytest.fixture(scope="module")
def mlp():
    return Dense("mlp")


def run(function, dense, objective=None, data=None):
    objective = objective or dense.objective
    data = dense.data if data is None else data
    call = tiny.quick_jit(lambda params, data: function(objective, params, data))
    return call(dense.params, data)


def test_fisher_diagonal_is_that_of_the_dense_fisher(dense):
    p = dense.softmax()
    matrices = (
        np.einsum("nk,kl->nkl", p, np.eye(tiny.CLASSES))
        - p[:, :, None] * (p[:, None, :])
    )
    assert_trees_close(
        run(fisher_diagonal, dense), dense.quadratic(matrices), rtol=1e-9
    )


def test_gauss_newton_is_the_fisher_for_cross_entropy(mlp):
    fisher = run(fisher_diagonal, mlp)
    assert_trees_close(run(gauss_newton_diagonal, mlp), fisher, rtol=1e-9)


def test_gauss_newton_of_squared_error_is_the_sum_of_squared_jacobians(mlp):
    targets = np.random.default_rng(0).normal(size=(COUNT, tiny.CLASSES))
    data = Batch(mlp.data.inputs, targets, mlp.data.weights)
    objective = mlp.objective._replace(loss=squared_error)
    matrices = np.broadcast_to(np.eye(tiny.CLASSES), (COUNT, *[tiny.CLASSES] * 2))
    value = run(gauss_newton_diagonal, mlp, objective, data)
    assert_trees_close(value, mlp.quadratic(matrices), rtol=1e-9)


def test_gauss_newton_takes_losses_that_are_not_convex(mlp):
    def wave(outputs, targets):
        return jnp.sum(jnp.sin(outputs), axis=1)

    objective = mlp.objective._replace(loss=wave)
    curved = -np.sin(mlp.outputs)
    matrices = np.einsum("nk,kl->nkl", curved, np.eye(tiny.CLASSES))
    value = run(gauss_newton_diagonal, mlp, objective)
    assert_trees_close(value, mlp.quadratic(matrices), rtol=1e-8, atol=1e-14)
    assert min(leaf.min() for leaf in jax.tree.leaves(value)) < 0


def flat(values):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(values)])


def test_drawn_labels_estimate_the_fisher_within_their_error(mlp):
    exact = flat(run(fisher_diagonal, mlp))

    @tiny.quick_jit
    def draws(keys, params, data):
        return jax.vmap(
            lambda key: sampled_fisher_diagonal(
                key, mlp.objective, params, data, samples=2
            )
        )(keys)

    keys = jax.random.split(jax.random.key(4), 400)
    many = draws(keys, mlp.params, mlp.data)
    values = np.concatenate([x.reshape(400, -1) for x in jax.tree.leaves(many)], axis=1)
    error = values.std(axis=0, ddof=1) / 20
    assert np.all(np.abs(values.mean(axis=0) - exact) < 4 * error)
    assert np.median(error / exact) < 0.1


def test_a_sequence_is_one_example_with_a_label_at_each_position(mlp):
    # Two positions that see the same input: a mean over them is worth one of them.
    def twice(params, inputs):
        return jnp.stack([mlp.objective.predict(params, inputs)] * 2, axis=1)

    objective = Objective(twice, sequence_nll)
    exact = flat(run(fisher_diagonal, mlp))
    data = mlp.data._replace(targets=np.stack([mlp.data.targets] * 2, axis=1))

    @tiny.quick_jit
    def estimate(key, params, data):
        return sampled_fisher_diagonal(key, objective, params, data, samples=3000)

    value = flat(estimate(jax.random.key(1), mlp.params, data))
    assert np.median(np.abs(value / exact - 1)) < 0.05


def test_bad_input_is_refused_when_built(mlp):
    def pairs(params, inputs):
        return jnp.stack([mlp.objective.predict(params, inputs)] * 2, axis=1)

    with pytest.raises(
        ValueError, match=r"needs outputs \(n, k\), got shape \(12, 2, 3"
    ):
        fisher_diagonal(Objective(pairs, sequence_nll), mlp.params, mlp.data)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        sampled_fisher_diagonal(
            jax.random.key(0), mlp.objective, mlp.params, mlp.data, samples=0
        )
