"""MUDMAN: its steps by hand, and what its mask leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_words

from unlearn_jax import tree
from unlearn_jax.methods import make_request
from unlearn_jax.methods.mudman import TERMS, mudman
from unlearn_jax.train.asked import asked
from unlearn_jax.train.loss import sequence_nll

RATES = {"learning_rate": 0.3, "adversary_rate": 0.2, "retain_rate": 0.1}


def test_steps_are_those_by_hand():
    learner = tiny_words.learner()
    words = tiny_words.examples(8)
    # All that is forgotten is alike, and so is the rest: nothing is left to chance.
    alike = jax.tree.map(lambda leaf: leaf[np.array([3] * 5 + [2] * 3)], words)
    request = make_request(alike, [5, 6, 7])
    original = learner.model.init(jax.random.key(1))
    method = mudman(
        learner,
        steps=3,
        fork_every=2,
        momentum=0.7,
        discount=0.6,
        batch_size=2,
        **RATES,
    )
    forget = tiny.quick_jit(method.forget)
    moved = forget(jax.random.key(0), (), original, request)[0].params

    def gradient(of, row):
        def loss(params):
            outputs = learner.model.apply(original._replace(params=params), row.inputs)
            return of(outputs, row.targets)[0]

        return tiny.quick_jit(jax.grad(loss))

    retained, forgotten = (
        jax.tree.map(lambda leaf, at=at: leaf[at : at + 1], alike) for at in (0, 5)
    )
    down, up, push = (
        gradient(sequence_nll, retained),
        gradient(sequence_nll, forgotten),
        gradient(lambda o, t: TERMS["entropy"](asked(o, t)), forgotten),
    )
    theta = phi = original.params
    running = tree.zeros_like(theta)
    for index in range(3):
        phi = theta if index % 2 == 0 else phi
        running = jax.tree.map(lambda a, g: 0.7 * a + 0.3 * g, running, down(theta))
        theta = tree.axpy(-0.1, running, theta)
        pushed, learnt = push(phi), tree.axpy(-0.2, up(phi), phi)
        phi = jax.tree.map(lambda p, t: 0.6 * p + 0.4 * t, learnt, theta)
        rate = 0.3 / float(tree.norm(pushed))
        theta = jax.tree.map(
            lambda p, u, a, r=rate: p - r * u * (np.sign(u) == np.sign(a)),
            theta,
            pushed,
            running,
        )
    np.testing.assert_allclose(tiny.flat(moved), tiny.flat(theta), atol=1e-10)


def test_terms_are_entropy_likelihood_and_margin():
    outputs = jnp.asarray([[[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [9.0, 9.0, 9.0]]])
    said = asked(outputs, np.array([[1, 0, -1]]))
    p = np.exp([3, 0, 0]) / (np.exp(3) + 2)
    entropy = (-np.log(3) + np.sum(p * np.log(p))) / 2
    assert TERMS["entropy"](said)[0] == pytest.approx(entropy)
    assert TERMS["ascent"](said)[0] == pytest.approx((np.log(1 / 3) + np.log(p[0])) / 2)
    assert TERMS["margin"](said)[0] == pytest.approx((0 + 2) / 2)


def test_what_cannot_be_done_is_refused():
    learner = tiny_words.learner()
    with pytest.raises(ValueError, match="term 'loss' is unknown"):
        mudman(learner, term="loss")
    with pytest.raises(ValueError, match="momentum must be from 0 to 1"):
        mudman(learner, momentum=1.5)
