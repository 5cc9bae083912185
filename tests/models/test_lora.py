import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from jax.flatten_util import ravel_pytree
from sequences import SIZES, build, tokens, variables
from tiny import quick_jit

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.data.batch import from_arrays
from unlearn_jax.methods.gradient_ascent import gradient_ascent
from unlearn_jax.methods.method import Request
from unlearn_jax.models.generate import generate
from unlearn_jax.models.lora import lora
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Variables


def chosen(path):
    return path[-2:] in (("query", "kernel"), ("down", "kernel"))


NAMES = {"blocks/attention/query/kernel", "blocks/down/kernel"}


@pytest.fixture(scope="module")
def adapted():
    """A scanned transformer with adapters that are off zero."""
    found = lora(build(scan=True), chosen, rank=2, alpha=3.0)
    begun = quick_jit(found.begin)(jax.random.key(1), variables(scan=True))
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(7 + leaf), begun.params)
    return found, begun, begun._replace(params=moved)


def test_it_begins_as_the_plain_model_and_is_merged_back(adapted):
    found, begun, moved = adapted
    plain = build(scan=True)

    def outputs(begun, moved, rows):
        cache = found.model.decoding.empty(3, 7)
        key, few = jax.random.key(0), jnp.asarray(rows[:, :4])
        texts = [
            generate(key, model, at, few, steps=3)
            for model, at in ((found.model, moved), (plain, found.merge(moved)))
        ]
        return (
            texts,
            found.model.apply(begun, rows),
            found.model.apply(moved, rows),
            plain.apply(found.merge(moved), rows),
            found.model.decoding.extend(moved, cache, rows)[0],
            plain.apply(variables(scan=True), rows),
        )

    texts, begins, adds, merged, kept, was = quick_jit(outputs)(begun, moved, tokens())
    np.testing.assert_array_equal(*texts)
    assert np.asarray(adds[:, 3]).argmax(-1).tolist() == texts[0][:, 0].tolist()
    np.testing.assert_array_equal(begins, was)
    np.testing.assert_array_equal(adds, merged)
    np.testing.assert_allclose(kept, merged, rtol=0, atol=1e-12)
    assert np.abs(adds - was).max() > 1e-2
    kernels = found.merge(moved).params["blocks"]["down"]["kernel"]
    own = moved.params["blocks/down/kernel"]
    before = variables(scan=True).params["blocks"]["down"]["kernel"]
    for at in range(2):
        np.testing.assert_allclose(
            kernels[at], before[at] + 1.5 * own["down"][at] @ own["up"][at], atol=1e-13
        )


def test_only_adapters_are_differentiated_and_exactly(adapted):
    found, _, moved = adapted
    assert set(moved.params) == NAMES
    objective = bind(found.model, moved.stats, sequence_nll)
    rows = tokens(3)
    data = from_arrays(rows[:, :-1], rows[:, 1:], np.array([1.0, 0.5, 2.0]))
    flat, unravel = ravel_pytree(moved.params)

    def dense(flat, data):
        return jax.jacrev(lambda f: objective.example_losses(unravel(f), data))(flat)

    gradients = np.asarray(quick_jit(dense)(flat, data))
    found_here = quick_jit(lambda p, d: empirical_fisher_diagonal(objective, p, d))(
        moved.params, data
    )
    shares = data.weights / data.weights.sum()
    expected = unravel(jnp.asarray(shares @ gradients**2))
    assert_trees_close(found_here, expected, rtol=1e-9, atol=1e-15)


def test_a_method_moves_the_adapters_and_nothing_else(adapted):
    found, begun, _ = adapted
    recipe = Recipe(epochs=1, batch_size=3, weight_decay=0.1)
    learner = Learner(found.model, sequence_nll, 0.0, recipe)
    rows = tokens(3)
    data = from_arrays(rows[:, :-1], rows[:, 1:])
    method = gradient_ascent(learner, epochs=2, learning_rate=0.1, batch_size=3)

    def forget(start, data):
        return method.forget(jax.random.key(0), (), start, Request(data, data))[0]

    after = quick_jit(forget)(begun, data)
    assert_trees_close(after.stats, begun.stats, rtol=0)
    plain = found.merge(Variables(after.params, after.stats))
    differs = jax.tree_util.tree_map_with_path(
        lambda path, new, old: bool(np.any(new != old)),
        plain.params,
        variables(scan=True).params,
    )
    moved = {
        "/".join(key.key for key in path)
        for path, yes in jax.tree_util.tree_leaves_with_path(differs)
        if yes
    }
    assert moved == NAMES


@pytest.mark.parametrize(
    ("where", "rank", "message"),
    [
        (chosen, 0, "rank 0, expected at least 1"),
        (lambda path: False, 2, "to adapt no parameter"),
        (lambda path: path == ("norm", "scale"), 2, "norm/scale, which has one axis"),
    ],
)
def test_adapters_that_cannot_be_are_refused(where, rank, message):
    with pytest.raises(ValueError, match=message):
        lora(build(), where, rank=rank).begin(jax.random.key(0), variables())


def test_blocks_below_the_first_have_no_adapter():
    found = lora(build(scan=True), chosen, rank=2, first=1)
    known = variables(scan=True)
    begun = quick_jit(found.begin)(jax.random.key(1), known)
    assert begun.params["blocks/down/kernel"]["down"].shape == (1, SIZES["hidden"], 2)
    moved = jax.tree.map(lambda leaf: leaf + 1.0, begun.params)
    kernels = found.merge(begun._replace(params=moved)).params["blocks"]["down"]
    before = known.params["blocks"]["down"]["kernel"]
    own = moved["blocks/down/kernel"]
    np.testing.assert_array_equal(kernels["kernel"][0], before[0])
    added = 8 * own["down"][0] @ own["up"][0]
    np.testing.assert_allclose(kernels["kernel"][1], before[1] + added, atol=1e-12)
    with pytest.raises(ValueError, match="begin at block 2 of blocks"):
        lora(build(scan=True), chosen, first=2).begin(jax.random.key(0), known)
    with pytest.raises(ValueError, match="first -1, expected"):
        lora(build(), chosen, first=-1)
