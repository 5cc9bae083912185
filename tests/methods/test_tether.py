"""Tethers: transport does not see rows change places, and is squares until they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_words

from unlearn_jax import tree
from unlearn_jax.methods import make_request
from unlearn_jax.methods.npo import npo
from unlearn_jax.methods.opt_out import opt_out
from unlearn_jax.methods.tether import TETHERS, sliced_wasserstein, squares

WHOLE = {"batch_size": 32, "learning_rate": 0.25, "retain": "none"}


def test_transport_is_what_sorting_each_projection_gives():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 7, 4))
    key = jax.random.key(3)
    distance = tiny.quick_jit(lambda a, b: sliced_wasserstein(key, a, b, directions=64))
    found = float(distance(a, b))
    drawn = np.array(jax.random.normal(key, (4, 64), jnp.float64))
    drawn /= np.linalg.norm(drawn, axis=0)
    gaps = (np.sort(a @ drawn, 0) - np.sort(b @ drawn, 0)) ** 2
    assert found == pytest.approx(gaps.sum(0).mean(), rel=1e-12)
    assert float(distance(a, a[[3, 1, 0, 2, 6, 5, 4]])) < 1e-25
    near = a + 1e-4 * b
    moved = ((1e-4 * b @ drawn) ** 2).sum(0)
    error = moved.std(ddof=1) / 8
    assert abs(float(distance(a, near)) - 1e-8 * (b**2).sum() / 4) < 4 * error
    assert float(distance(a, b)) < (((a - b) @ drawn) ** 2).sum(0).mean()


def test_rows_are_outputs_of_kernels_and_tokens_of_embeddings():
    random = np.random.default_rng(1)
    shapes = {"kernel": (2, 3, 5), "embedding": (7, 4), "scale": (6,)}
    home = {name: random.normal(size=shape) for name, shape in shapes.items()}
    places = {"kernel": (..., [4, 0, 1, 2, 3]), "embedding": [6, 0, 1, 2, 3, 4, 5]}
    moved = {**home, **{name: home[name][at] for name, at in places.items()}}
    key = jax.random.key(0)
    transport = tiny.quick_jit(TETHERS["wasserstein"](16))
    assert float(transport(key, moved, home)) < 1e-25
    turned = {**home, "kernel": home["kernel"][:, [1, 0, 2]]}
    assert float(transport(key, turned, home)) > 1e-3
    gap = {name: moved[name] - home[name] for name in home}
    expected = (gap["kernel"] ** 2).sum() / 3 + (gap["embedding"] ** 2).sum() / 4
    found = float(tiny.quick_jit(squares())(key, moved, home))
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_tether_pulls_back_from_the_second_step_on_and_none_is_npo():
    learner = tiny_words.learner(momentum=0.0)
    request = make_request(tiny_words.examples(), [0, 1, 5, 8, 13])
    original = learner.model.init(jax.random.key(0))

    def run(method):
        moved = tiny.quick_jit(method.forget)(jax.random.key(3), (), original, request)
        return tiny.flat(tree.subtract(moved[0].params, original.params))

    given = {"reduction": "token_mean", "epochs": 2, **WHOLE}
    free, held = (
        run(opt_out(learner, tether="squares", strength=s, **given)) for s in (0.0, 1.0)
    )
    np.testing.assert_allclose(free, run(npo(learner, **given)), atol=1e-14)
    assert np.linalg.norm(held) < np.linalg.norm(free)
    # The pull of the squares after one step, leaf by leaf: 2 (θ - θ₀) / row length.
    once = run(opt_out(learner, strength=1.0, **{**given, "epochs": 1}))
    lengths = {"embedding": 5, "head": 5, "hidden": 5}
    pull = {
        name: np.full(leaf.shape, 2 / lengths[name])
        for name, leaf in original.params.items()
    }
    np.testing.assert_allclose(held - free, -0.25 * tiny.flat(pull) * once, atol=1e-12)
    with pytest.raises(ValueError, match="wasserstein, squares"):
        opt_out(learner, tether="rope")
