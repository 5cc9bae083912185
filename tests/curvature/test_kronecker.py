"""K-FAC and EK-FAC of every kind of layer against dense blocks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close
from layer_kinds import COUNT, KINDS, OUTPUTS

from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_blocks import (
    Diagonal,
    Factors,
    Full,
    Rotated,
    RotatedRows,
    RowFactors,
    Spectral,
    mean_eigenvalue,
)
from unlearn_jax.curvature.kronecker_inverse import (
    kronecker_inverse,
    kronecker_operator,
)
from unlearn_jax.curvature.kronecker_scores import influence_scores, scores_over
from unlearn_jax.curvature.per_example import Outer, Rows, loss_gradients
from unlearn_jax.curvature.rearrangement import from_forms, to_forms
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

CHOSEN = {
    "dense": [Full, Factors, Factors],
    "channels first": [Factors],
    "grouped": [Factors],
    "attention": [Factors] * 4,
    "embedding": [RowFactors, Factors],
    "batch norm": [Full, Full, Full, Factors],
    "scanned layers": [Full, Factors],
    "tied embedding": [Diagonal],
}
MAX_BLOCK, DAMPING = 20, 0.3
SOME = np.array([1.0, 0.5, 0.0, 2.0, 0.3])


class Case:
    """A net, its Kronecker approximations, and its gradients as rows in block form."""

    def __init__(self, name):
        self.name = name
        self.params, predict, inputs = KINDS[name]()
        self.objective = Objective(predict, cross_entropy, 0.7)
        targets = jnp.arange(COUNT, dtype=jnp.int32) % OUTPUTS
        self.clean = Batch(jnp.asarray(inputs), targets, jnp.asarray(SOME))
        self.data = self.clean
        if jnp.issubdtype(inputs.dtype, jnp.floating):
            self.data = self.clean._replace(inputs=inputs.at[2].set(jnp.nan))
        self.direction = jax.tree.map(lambda leaf: jnp.cos(3 + leaf), self.params)
        found = tiny.quick_jit(self._everything)(self.params, self.data, self.clean)
        self.found = found
        self.factored = found["gradients"]
        places = found["expand"].places
        self.forms = jax.tree.map(
            np.asarray,
            jax.vmap(lambda row: to_forms(places, row))(
                tiny.quick_jit(jax.jacrev(self.objective.example_losses))(
                    self.params, self.clean
                )
            ),
        )

    def _everything(self, params, data, clean):
        options: dict[str, Any] = {"max_block": MAX_BLOCK, "batch_size": 2}
        objective = self.objective
        states = {
            shared: kfac(None, objective, params, data, shared=shared, **options)
            for shared in ("expand", "reduce")
        }
        states["ekfac"] = ekfac(None, objective, params, data, **options)
        _, gradients = loss_gradients(objective, params, clean)
        first = jax.tree.map(lambda leaf: leaf[:2], clean)
        return states | {
            "gradients": gradients,
            "inverse": {
                name: kronecker_inverse(state, damping=DAMPING)(self.direction)
                for name, state in states.items()
            },
            "factored": kronecker_inverse(
                states["expand"], damping=DAMPING, split="factored"
            )(self.direction),
            "product": {
                name: kronecker_operator(state, params)(self.direction)
                for name, state in states.items()
            },
            "scores": scores_over(
                objective,
                params,
                states["ekfac"],
                first,
                data,
                damping=DAMPING,
                batch_size=2,
            ),
        }

    def true_block(self, leaf):
        """The block of the empirical Fisher, formed from the stacked gradients."""
        flat = self.forms[leaf].reshape(COUNT, -1)
        return (SOME[:, None] * flat).T @ flat / SOME.sum()

    def flat_forms(self, tree):
        forms = to_forms(self.found["expand"].places, tree)
        return [np.asarray(form).ravel() for form in forms]


@pytest.fixture(scope="module", params=CHOSEN)
def case(request):
    return Case(request.param)


def block_diagonal(blocks):
    sizes = [len(block) for block in blocks]
    full = np.zeros((sum(sizes), sum(sizes)))
    for number, block in enumerate(blocks):
        start = sum(sizes[:number])
        full[start : start + len(block), start : start + len(block)] = block
    return full


def as_matrix(block):
    """What a block stands for, by numpy's Kronecker products."""
    if isinstance(block, Diagonal):
        return np.diag(block.entries)
    if isinstance(block, Full):
        return np.asarray(block.matrix)
    if isinstance(block, RowFactors):
        return np.kron(np.diag(block.rows), block.slopes)
    if isinstance(block, Factors):
        return block_diagonal([np.kron(a, g) for a, g in zip(*block, strict=True)])
    q = basis(block)
    return q @ np.diag(np.ravel(block.values)) @ q.T


def basis(block):
    if isinstance(block, Rotated):
        pairs = zip(block.left, block.right, strict=True)
        return block_diagonal([np.kron(a, g) for a, g in pairs])
    if isinstance(block, RotatedRows):
        return np.kron(np.eye(len(block.values)), block.right)
    return np.asarray(block.vectors)


def close(actual, expected, rtol=1e-9):
    # Slopes of attention's keys add up to zero: some factors are rounding alone.
    scale = max(np.abs(expected).max(), 1e-15)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-11 * scale)


def test_each_parameter_gets_the_kind_of_block_that_fits_it(case):
    assert [type(block) for block in case.found["expand"].blocks] == CHOSEN[case.name]


def test_forms_round_trip(case):
    places = case.found["expand"].places
    back = from_forms(places, to_forms(places, case.direction))
    assert_trees_close(back, case.direction, rtol=0)


@pytest.mark.parametrize("shared", ["expand", "reduce"])
def test_factors_are_second_moments_of_inputs_and_slopes(case, shared):
    mean = SOME / SOME.sum()
    for leaf, block in enumerate(case.found[shared].blocks):
        gradient = case.factored[leaf]
        if isinstance(gradient, Outer):
            a, s = (np.asarray(part) for part in gradient)
        elif isinstance(gradient, Rows):
            a = np.eye(len(block.rows))[np.asarray(gradient.indices)][:, None]
            s = np.asarray(gradient.slopes)[:, None]
        else:
            expected = case.true_block(leaf)
            if isinstance(block, Diagonal):
                expected = np.diag(np.diag(expected))
            close(as_matrix(block), expected)
            continue
        t = a.shape[2]
        if shared == "reduce":
            a, s, t = a.mean(2, keepdims=True), s.sum(2, keepdims=True), 1
        left = np.einsum("n,ngti,ngtj->gij", mean / t, a, a)
        right = np.einsum("n,ngti,ngtj->gij", mean, s, s)
        if isinstance(gradient, Rows):
            left, right = np.diagonal(left[0]), right[0]
        close(block[0], left)
        close(block[1], right)


def test_eigenvalues_are_the_diagonal_of_the_true_block_in_their_basis(case):
    for leaf, block in enumerate(case.found["ekfac"].blocks):
        if isinstance(block, Diagonal):
            close(block.entries, np.diag(case.true_block(leaf)))
            continue
        q = basis(block)
        np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-12)
        close(np.ravel(block.values), np.diag(q.T @ case.true_block(leaf) @ q))


def test_ekfac_is_at_least_as_close_to_the_true_block_as_kfac(case):
    for leaf, block in enumerate(case.found["ekfac"].blocks):
        true = case.true_block(leaf)
        error = {
            name: np.linalg.norm(as_matrix(case.found[name].blocks[leaf]) - true)
            for name in ("expand", "ekfac")
        }
        if isinstance(block, Spectral | Diagonal):
            np.testing.assert_allclose(error["ekfac"], error["expand"], atol=1e-10)
        else:
            assert error["ekfac"] < error["expand"]


@pytest.mark.parametrize("name", ["expand", "reduce", "ekfac"])
def test_products_and_inverses_are_those_of_the_dense_blocks(case, name):
    directions = case.flat_forms(case.direction)
    products = case.flat_forms(case.found["product"][name])
    inverses = case.flat_forms(case.found["inverse"][name])
    for leaf, block in enumerate(case.found[name].blocks):
        matrix = as_matrix(block)
        close(products[leaf], matrix @ directions[leaf])
        damped = matrix + DAMPING * np.eye(len(matrix))
        close(inverses[leaf], np.linalg.solve(damped, directions[leaf]))


def test_factored_damping_inverts_the_product_of_damped_factors(case):
    found = case.flat_forms(case.found["factored"])
    directions = case.flat_forms(case.direction)
    root = np.sqrt(DAMPING)
    for leaf, block in enumerate(case.found["expand"].blocks):
        if isinstance(block, Factors):
            pairs = list(zip(*block, strict=True))
        elif isinstance(block, RowFactors):
            pairs = [(np.diag(block.rows), block.slopes)]
        else:
            continue
        damped = []
        for a, g in pairs:
            pi = np.sqrt(np.trace(a) / len(a) * len(g) / np.trace(g))
            left = a + pi * root * np.eye(len(a))
            damped.append(np.kron(left, g + root / pi * np.eye(len(g))))
        solved = np.linalg.solve(block_diagonal(damped), directions[leaf])
        close(found[leaf], solved)


def test_scores_are_products_with_the_dense_inverse(case):
    expected = np.zeros((2, COUNT))
    for leaf, block in enumerate(case.found["ekfac"].blocks):
        flat = case.forms[leaf].reshape(COUNT, -1)
        matrix = as_matrix(block) + DAMPING * np.eye(flat.shape[1])
        expected += flat[:2] @ np.linalg.solve(matrix, flat.T)
    expected[:, SOME == 0] = 0
    close(case.found["scores"], expected)


def test_mean_eigenvalue_is_the_mean_of_the_dense_eigenvalues(case):
    for name in ("expand", "ekfac"):
        state = case.found[name]
        matrices = [as_matrix(block) for block in state.blocks]
        values = np.concatenate([np.linalg.eigvalsh(matrix) for matrix in matrices])
        close(mean_eigenvalue(state), values.mean())


def test_damping_that_is_not_positive_is_refused():
    case = Case("dense")
    for damping in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="mean_eigenvalue"):
            kronecker_inverse(case.found["expand"], damping=damping)
        with pytest.raises(ValueError, match="mean_eigenvalue"):
            influence_scores(
                case.found["ekfac"], case.factored, case.factored, damping=damping
            )


def test_a_split_that_cannot_be_is_refused():
    case = Case("dense")
    with pytest.raises(ValueError, match="split='exact'"):
        kronecker_inverse(case.found["ekfac"], damping=1.0, split="factored")
