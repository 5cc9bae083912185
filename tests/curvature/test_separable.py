"""Separable inverses against the table, and scores made with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker_blocks import mean_eigenvalue
from unlearn_jax.curvature.kronecker_scores import scores_over
from unlearn_jax.curvature.separable import separable_inverse
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

DAMPING = 1e-3


def table(rows=30, columns=24, seed=0):
    """Falling energies, disturbed so that the table is not a product."""
    random = np.random.default_rng(seed)
    energies = np.outer(0.7 ** np.arange(rows), 0.8 ** np.arange(columns))
    return jnp.asarray(energies * random.gamma(2.0, 0.5, size=energies.shape))


def separable(values, rank):
    fit = tiny.quick_jit(lambda v: separable_inverse(v, damping=DAMPING, rank=rank))
    return fit(values)


def product(found):
    return np.einsum("gri,gro->gio", found.left, found.right)


def weights_of(values):
    rows, columns = (np.sqrt(values.sum(axis)) for axis in (1, 0))
    return np.outer(rows / rows.max(), columns / columns.max())


def test_full_rank_is_the_table_of_inverses():
    values = jnp.stack([table(6, 5), table(6, 5, seed=1)])
    found = separable(values, 5)
    np.testing.assert_allclose(product(found), 1 / (values + DAMPING), rtol=1e-8)
    np.testing.assert_allclose(found.tail, 0, atol=1e-7)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_error_and_tail_are_those_of_the_best_weighted_approximation(rank):
    values = table()
    weights = weights_of(np.asarray(values))
    weighted = weights / (np.asarray(values) + DAMPING)
    best = np.linalg.svd(weighted, compute_uv=False)
    found = separable(values[None], rank)
    np.testing.assert_allclose(found.spectrum[0], best[:rank], rtol=1e-3)
    error = np.linalg.norm(weights * product(found)[0] - weighted)
    least = np.sqrt(np.sum(best[rank:] ** 2))
    assert least <= error <= 1.01 * least
    relative = error / np.linalg.norm(weighted)
    np.testing.assert_allclose(found.tail[0], relative, rtol=1e-6)


def test_directions_without_energy_stay_finite():
    values = table().at[5].set(0).at[:, 7].set(0)[None]
    found = separable(values, 8)
    assert all(np.all(np.isfinite(part)) for part in found)
    nothing = separable_inverse(jnp.zeros((1, 6, 5)), damping=0.5, rank=2)
    np.testing.assert_allclose(product(nothing), 2.0, rtol=1e-10)


def test_no_terms_are_refused():
    with pytest.raises(ValueError, match="rank=0"):
        separable_inverse(table()[None], damping=1.0, rank=0)


def predict(params, inputs):
    hidden = jnp.tanh(inputs @ params["w"] + params["b"][None])
    return jnp.tanh(hidden @ params["u"]) @ params["v"]


class Trained:
    """A small net after some descent: its energies spread over many decades."""

    def __init__(self):
        random = np.random.default_rng(0)
        sizes = {"w": (30, 24), "u": (24, 20), "v": (20, 4)}
        start = {k: random.normal(size=s) / np.sqrt(s[0]) for k, s in sizes.items()}
        start = jax.tree.map(jnp.asarray, start | {"b": np.zeros(24)})
        labels = np.arange(160) % 4
        mixing = random.normal(size=(12, 30)) * 0.7 ** np.arange(12)[:, None]
        inputs = random.normal(size=(4, 30))[labels] + 2 * (
            random.normal(size=(160, 12)) @ mixing
        )
        data = Batch(jnp.asarray(inputs), jnp.asarray(labels, jnp.int32), jnp.ones(160))
        self.objective = Objective(predict, cross_entropy)
        self.queries = jax.tree.map(lambda leaf: leaf[:32], data)
        self.train = jax.tree.map(lambda leaf: leaf[32:], data)
        self.params, self.state = tiny.quick_jit(self._fit)(start, self.train)

    def _fit(self, params, train):
        def step(_, at):
            slope = jax.grad(self.objective.risk)(at, train)
            return jax.tree.map(lambda x, g: x - 0.3 * g, at, slope)

        params = jax.lax.fori_loop(0, 100, step, params)
        return params, ekfac(None, self.objective, params, train)

    def scores(self, rank, relative=0.1):
        def run(params, state, queries, train):
            return scores_over(
                self.objective,
                params,
                state,
                queries,
                train,
                damping=relative * mean_eigenvalue(state),
                rank=rank,
                batch_size=50,
            )

        args = (self.params, self.state, self.queries, self.train)
        return np.asarray(tiny.quick_jit(run)(*args))


@pytest.fixture(scope="module")
def trained():
    return Trained()


@pytest.mark.parametrize("relative", [0.1, 0.001])
def test_eight_terms_order_influence_like_the_exact_inverse(trained, relative):
    exact, found = (trained.scores(rank, relative) for rank in (None, 8))
    pairs = zip(exact, found, strict=True)
    assert min(np.corrcoef(a, b)[0, 1] for a, b in pairs) >= 0.99


def test_all_terms_give_the_exact_scores(trained):
    exact, found = (trained.scores(rank) for rank in (None, 24))
    np.testing.assert_allclose(found, exact, rtol=1e-7, atol=1e-9 * np.abs(exact).max())
