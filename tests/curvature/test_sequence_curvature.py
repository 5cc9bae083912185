"""Every curvature of the transformer's sequences against dense derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from jax.flatten_util import ravel_pytree
from tiny import quick_jit

from unlearn_jax import tree
from unlearn_jax.attribution.influence import influence_on_parameters
from unlearn_jax.attribution.projection import project
from unlearn_jax.curvature.diagonal import (
    empirical_fisher_diagonal,
    gauss_newton_diagonal,
    sampled_fisher_diagonal,
)
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.fisher import empirical_fisher, fisher
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.kronecker_blocks import Diagonal, Full, Rotated, RotatedRows
from unlearn_jax.curvature.per_example import (
    Outer,
    Rows,
    Whole,
    formed_whole,
    loss_gradients,
)
from unlearn_jax.curvature.rearrangement import to_forms
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.models import MODELS
from unlearn_jax.train.loss import sequence_nll, sequence_nll_sum
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Batch

WORDS, LENGTH, COUNT, L2 = 5, 4, 4, 0.3
SIZES = {"width": 4, "heads": 2, "groups": 1, "size": 2, "hidden": 3}
WEIGHTS = np.array([1.0, 0.5, 0.0, 2.0])
CASES = {
    "listed, tied, mean": (False, True, sequence_nll),
    "scanned, head, sum": (True, False, sequence_nll_sum),
}


class Case:
    """A tiny transformer, its dense derivatives, and what the library says of them."""

    def __init__(self, name):
        self.scan, self.tied, self.loss = CASES[name]
        options = {"scan": self.scan, "tied": self.tied, "dtype": jnp.float64}
        options["depth"] = 2 if self.scan else 1
        self.model = MODELS["transformer"]((LENGTH,), WORDS, **SIZES, **options)
        drawn = quick_jit(self.model.init)(jax.random.key(1)).params
        self.params = jax.tree.map(lambda leaf: leaf * (1 + jnp.cos(9 * leaf)), drawn)
        random = np.random.default_rng(0)
        tokens = random.integers(0, WORDS, (COUNT, LENGTH)).astype(np.int32)
        targets = random.integers(0, WORDS, (COUNT, LENGTH)).astype(np.int32)
        targets[0, 0] = targets[3, :2] = -1
        tokens[1, 2:] = targets[1, 2:] = -1  # padding
        self.data = Batch(jnp.asarray(tokens), jnp.asarray(targets), jnp.array(WEIGHTS))
        self.objective = bind(self.model, {}, self.loss, L2)
        flat, self.unravel = ravel_pytree(self.params)
        self.flat = np.asarray(flat)
        self.vector = random.standard_normal(flat.size)
        self.shares = WEIGHTS / WEIGHTS.sum()
        self._dense()
        self.found = quick_jit(self._everything)(self.params, self.data)

    def _dense(self):
        def outputs(flat):
            return self.objective.predict(self.unravel(flat), self.data.inputs)

        def risk(flat):
            return self.objective.risk(self.unravel(flat), self.data)

        def all_of_them(flat):
            logits = outputs(flat)
            return logits, jax.jacrev(outputs)(flat), jax.hessian(risk)(flat)

        logits, jacobian, self.hessian = map(
            np.asarray, quick_jit(all_of_them)(self.flat)
        )
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        kept = np.asarray(self.data.targets) >= 0
        share = kept.astype(float)
        if self.loss is sequence_nll:
            share /= kept.sum(1, keepdims=True)
        hot = np.eye(WORDS)[np.maximum(self.data.targets, 0)]
        self.gradients = np.einsum("nt,ntk,ntkp->np", share, p - hot, jacobian)
        inner = np.einsum("ntk,kl->ntkl", p, np.eye(WORDS))
        inner -= np.einsum("ntk,ntl->ntkl", p, p)
        weighted = np.einsum("n,nt,ntkl->ntkl", self.shares, share, inner)
        self.fisher = np.einsum("ntkp,ntkl,ntlq->pq", jacobian, weighted, jacobian)
        self.empirical = (self.shares[:, None] * self.gradients).T @ self.gradients

    def _everything(self, params, data):
        objective, vector = self.objective, self.unravel(jnp.asarray(self.vector))
        builders = (gauss_newton, hessian, fisher, empirical_fisher)
        taped, gradients = loss_gradients(objective, params, data)
        return {
            "products": [
                build(objective, params, data).matvec(vector) for build in builders
            ],
            "empirical": empirical_fisher_diagonal(objective, params, data),
            "exact": gauss_newton_diagonal(objective, params, data),
            "ekfac": ekfac(None, objective, params, data, max_block=8),
            "projected": project(
                jax.random.key(0), taped, gradients, kind="none", width=1
            ),
            "signs": project(
                jax.random.key(0), taped, gradients, kind="dense", width=5
            ),
            "influence": influence_on_parameters(
                objective,
                params,
                data,
                -jnp.asarray(WEIGHTS),
                lambda tree: self.unravel(
                    jnp.linalg.solve(
                        jnp.asarray(self.fisher) + jnp.eye(len(self.flat)),
                        ravel_pytree(tree)[0],
                    )
                ),
            ),
        }


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(request.param)


def close(found, expected, rtol=1e-9):
    found = (
        found if isinstance(found, np.ndarray) else np.asarray(ravel_pytree(found)[0])
    )
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


def test_products_are_those_of_the_dense_matrices(case):
    own = (
        case.fisher + L2 * np.eye(len(case.flat)),
        case.hessian,
        case.fisher,
        case.empirical,
    )
    for found, matrix in zip(case.found["products"], own, strict=True):
        close(found, matrix @ case.vector)
    assert np.abs(case.fisher - case.empirical).max() > 1e-3


def test_diagonals_are_those_of_the_dense_matrices(case):
    close(case.found["empirical"], np.diag(case.empirical))
    close(case.found["exact"], np.diag(case.fisher))


def test_a_diagonal_of_drawn_labels_estimates_the_exact_one(case):
    draw = quick_jit(
        lambda key, params, data: ravel_pytree(
            sampled_fisher_diagonal(key, case.objective, params, data, samples=4)
        )[0]
    )
    keys = jax.random.split(jax.random.key(3), 60)
    drawn = np.stack([draw(key, case.params, case.data) for key in keys])
    error = drawn.std(0, ddof=1) / np.sqrt(len(keys))
    exact = np.diag(case.fisher)
    assert (np.abs(drawn.mean(0) - exact) < 5 * error + 1e-12).all()
    total = drawn.sum(1)
    spread = total.std(ddof=1) / np.sqrt(len(keys))
    assert abs(total.mean() - exact.sum()) < 4 * spread
    assert spread < 0.1 * exact.sum()


def test_projections_are_of_the_gradients(case):
    np.testing.assert_allclose(
        case.found["projected"], case.gradients, rtol=1e-9, atol=1e-12
    )
    # Signs: linear in the gradients, so that one matrix explains all examples.
    signs = np.asarray(case.found["signs"])
    solved, *_ = np.linalg.lstsq(case.gradients, signs, rcond=None)
    np.testing.assert_allclose(case.gradients @ solved, signs, rtol=1e-6, atol=1e-9)
    assert np.abs(signs[[0, 1, 3]]).min() > 0


def test_influence_is_the_dense_solution(case):
    mean = case.shares @ case.gradients + L2 * case.flat
    matrix = case.fisher + np.eye(len(case.flat))
    close(case.found["influence"], np.linalg.solve(matrix, mean), rtol=1e-8)


def test_ekfac_measures_the_true_blocks_in_its_bases(case):
    state = case.found["ekfac"]
    rows = jax.vmap(lambda row: to_forms(state.places, case.unravel(row)))(
        jnp.asarray(case.gradients)
    )
    for form, block in zip(rows, state.blocks, strict=True):
        flat = np.asarray(form).reshape(COUNT, -1)
        true = (case.shares[:, None] * flat).T @ flat
        if isinstance(block, Diagonal):
            close(np.asarray(block.entries), np.diag(true))
            continue
        if isinstance(block, Rotated):
            pairs = list(zip(block.left, block.right, strict=True))
            parts = [np.kron(a, g) for a, g in pairs]
            q = np.zeros((len(parts) * len(parts[0]),) * 2)
            for number, part in enumerate(parts):
                at = slice(number * len(part), (number + 1) * len(part))
                q[at, at] = part
        elif isinstance(block, RotatedRows):
            q = np.kron(np.eye(len(block.values)), block.right)
        else:
            q = np.asarray(block.vectors)
        close(np.ravel(np.asarray(block.values)), np.diag(q.T @ true @ q))
    assert {type(block) for block in state.blocks} - {Diagonal, Full}


def test_every_kernel_keeps_its_factors(case):
    taped = tape(case.objective.predict, case.params, case.data.inputs)
    whole = set(formed_whole(taped))
    scales = {
        tree.path_names(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(case.params)
        if "scale" in tree.path_names(path) and leaf.ndim > 1
    }
    assert whole == scales | ({("tokens", "embedding")} if case.tied else set())
    _, gradients = loss_gradients(case.objective, case.params, case.data)
    kinds = {Outer: 0, Rows: 0, Whole: 0}
    for gradient in gradients:
        kinds[type(gradient)] += 1
    assert kinds[Outer] == 7 + (not case.tied)
    assert kinds[Rows] == (not case.tied)
    assert_trees_close(
        jnp.asarray(case.shares) @ case.found["projected"],
        jnp.asarray(case.shares @ case.gradients),
        rtol=1e-9,
        atol=1e-12,
    )
