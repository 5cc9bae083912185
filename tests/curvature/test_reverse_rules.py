"""Layers that know their way back alone, under the operators."""

import jax
import jax.numpy as jnp
import pytest
from asserts import assert_trees_close
from kind_parts import draw

from unlearn_jax.curvature.fisher import empirical_fisher
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.jacobian import linear_part
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch


def plain(w, x):
    return jnp.tanh(x @ w)


@jax.custom_vjp
def reverse_only(w, x):
    return plain(w, x)


reverse_only.defvjp(
    lambda w, x: (reverse_only(w, x), (w, x)),
    lambda held, slopes: jax.vjp(plain, *held)[1](slopes),
)


@pytest.mark.parametrize("build", [gauss_newton, empirical_fisher, hessian])
def test_operators_of_a_layer_with_a_reverse_rule_are_those_of_the_layer(build):
    params = {"w": draw(2, 4, 5), "v": draw(3, 5, 3)}
    batch = Batch(draw(1, 5, 4), jnp.arange(5) % 3, jnp.ones(5))
    vector = {"w": draw(4, 4, 5), "v": draw(5, 5, 3)}

    def product(layer):
        objective = Objective(
            lambda p, x: layer(p["w"], x) @ p["v"], cross_entropy, 0.1
        )
        return build(objective, params, batch)(vector)

    expected = product(plain)
    assert_trees_close(product(reverse_only), expected, rtol=1e-9, atol=1e-12)


def test_other_errors_of_a_function_are_its_own():
    def wrong(x):
        raise TypeError("not ours")

    with pytest.raises(TypeError, match="not ours"):
        linear_part(wrong, jnp.ones(2))
