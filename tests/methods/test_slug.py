"""SLUG: importance, alignment and front by hand; length by bisection; Newton's step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.methods import make_request
from unlearn_jax.methods.potion import label_agreement
from unlearn_jax.methods.slug import (
    halves,
    importance_and_alignment,
    kernels,
    pareto_front,
    slug,
)

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def without_first(train):
    return make_request(train, np.flatnonzero(np.asarray(train.targets) == 0))


def test_importance_and_alignment_are_ratios_and_cosines():
    random = np.random.default_rng(0)
    shapes = {"a": (3, 4), "b": (5,), "c": (2, 3, 2)}
    trees = [{k: random.normal(size=s) for k, s in shapes.items()} for _ in range(3)]
    params, up, down = trees
    found = tiny.quick_jit(importance_and_alignment)(*trees)
    for place, name in enumerate("ac"):
        p, g, r = (one[name].ravel() for one in (params, up, down))
        cosine = abs(g @ r) / np.linalg.norm(g) / np.linalg.norm(r)
        np.testing.assert_allclose(found.alignment[place], cosine, rtol=1e-10)
        ratio = np.linalg.norm(g) / np.linalg.norm(p)
        np.testing.assert_allclose(found.importance[place], ratio, rtol=1e-10)
    assert kernels(jax.tree.map(jnp.asarray, params)) == {"a": 0, "b": -1, "c": 1}


def test_the_front_is_what_nobody_beats_in_both():
    importance = jnp.array([3.0, 2.0, 1.0, 3.0, 0.5])
    alignment = jnp.array([0.9, 0.5, 0.6, 0.8, 0.5])
    # The third falls to the second; the first ties with the fourth in importance, the
    # last with the second in alignment.
    front = tiny.quick_jit(pareto_front)(importance, alignment)
    np.testing.assert_array_equal(front, [True, True, False, True, True])


def test_halves_share_nothing_and_leave_nothing_out(train):
    weights = np.where(np.arange(tiny.COUNT) < 11, 1.0, 0.0)
    split = tiny.quick_jit(halves)
    one, other = (
        np.asarray(part.weights) for part in split(KEY, train._replace(weights=weights))
    )
    assert one.sum() == 6
    np.testing.assert_array_equal(one + other, weights)
    alone = train._replace(weights=np.where(np.arange(tiny.COUNT) == 4, 1.0, 0.0))
    for part in split(KEY, alone):
        np.testing.assert_array_equal(part.weights, alone.weights)


def run(learner, original, request, **options):
    method = slug(learner, goal=options.pop("goal", 0.0), **options)
    state = jnp.float32(0.0)
    return tiny.quick_jit(method.forget)(KEY, state, original, request)[0]


def moved_kernels(before, after):
    """Name -> step, of what moved."""
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(before.params),
        jax.tree.leaves(after.params),
        strict=True,
    )
    steps = {jax.tree_util.keystr(path): np.asarray(b - a) for (path, a), b in pairs}
    return {name: step for name, step in steps.items() if step.any()}


@pytest.mark.parametrize("step", ["gradient", "newton"])
def test_one_kernel_moves_as_far_as_it_takes(step, original, without_first):
    learner = tiny.learner("mlp")
    after = run(learner, original, without_first, step=step)
    (name,) = moved_kernels(original, after)
    assert name.endswith("['kernel']")
    lost_out = halves(jax.random.split(KEY)[0], without_first.forget)[1]
    right = tiny.quick_jit(lambda v: label_agreement(learner, v, lost_out))
    assert right(original) > 0.5
    assert right(after) == 0
    # Half as far, and it is not: the length was not merely large.
    back = jax.tree.map(lambda a, b: (a + b) / 2, original, after)
    assert right(back) > 0


def softmax_parts(params, request, keys):
    """Mean gradients and Gauss-Newton of both first halves, for softmax in numpy."""
    kernel = np.asarray(params["kernel"])
    parts = [halves(k, part)[0] for k, part in zip(keys, request, strict=True)]
    found = []
    for part in parts:
        rows = np.asarray(part.weights) > 0
        x, y = np.asarray(part.inputs)[rows], np.asarray(part.targets)[rows]
        odds = np.exp(x @ kernel)
        p = odds / odds.sum(1, keepdims=True)
        slope = x.T @ (p - np.eye(tiny.CLASSES)[y]) / len(x)
        blocks = p[:, :, None] * (np.eye(tiny.CLASSES) - p[:, None])
        matrix = np.einsum("nf,ng,nij->figj", x, x, blocks) / len(x)
        found.append((slope.ravel(), matrix.reshape(slope.size, -1)))
    return found


@pytest.mark.parametrize("step", ["gradient", "newton"])
def test_the_direction_is_the_gradient_or_newtons(step, without_first):
    learner = tiny.learner("softmax", l2=0.05)
    original = learner.model.init(jax.random.key(1))
    options = {"damping": 0.1, "max_steps": 60} if step == "newton" else {}
    after = run(learner, original, without_first, step=step, **options)
    moved = np.ravel(after.params["kernel"] - original.params["kernel"])
    (up, _), (_, matrix) = softmax_parts(
        original.params, without_first, jax.random.split(KEY)
    )
    expected = up
    if step == "newton":
        expected = np.linalg.solve(matrix + 0.15 * np.eye(up.size), up)
    cosine = moved @ expected / np.linalg.norm(moved) / np.linalg.norm(expected)
    assert cosine == pytest.approx(1, abs=1e-5)
    # Lengths are a tenth of the kernel's times what doubling and halving can give.
    ratio = np.linalg.norm(moved) / np.linalg.norm(original.params["kernel"]) * 10
    assert ratio * 2**10 == pytest.approx(round(ratio * 2**10), rel=1e-6)


def test_bad_settings_are_refused(original, request_a):
    learner = tiny.learner("mlp")
    with pytest.raises(ValueError, match="step 'second' is unknown; choose from grad"):
        slug(learner, step="second")
    with pytest.raises(ValueError, match="no parameter has two axes"):
        kernels({"a": jnp.zeros(3)})
    adam = learner._replace(recipe=learner.recipe.__class__(optimizer="adam"))
    with pytest.raises(ValueError, match="give a damping"):
        slug(adam, step="newton")
