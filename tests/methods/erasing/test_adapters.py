"""Adapters: each reads for itself, applies as much as it should, and starts as ESD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree
from scene import KEY, PROMPTS, jacobian, scene, told

from unlearn_jax.methods.erasing.adapters import (
    Adapter,
    blank,
    transport,
    with_adapters,
)
from unlearn_jax.methods.erasing.esd import erasing
from unlearn_jax.methods.erasing.spm import spm

NAME = "['network']['blocks'][0]['cross']['key']['kernel']"


def drawn(seed):
    start = blank(jax.random.key(seed), scene()[1])
    outer = {
        name: jax.random.normal(jax.random.key(seed + 1), leaf.shape)
        for name, leaf in start.outer.items()
    }
    return Adapter(start.inner, outer)


def kernel(variables):
    return np.asarray(
        variables.params["network"]["blocks"][0]["cross"]["key"]["kernel"]
    )


def test_adapters_add_up_and_the_released_sum_has_cross_terms():
    variables = scene()[1]
    one, two = drawn(0), drawn(5)
    gains = np.array([0.7, 0.2])
    first, second = (
        np.outer(each.inner[NAME], each.outer[NAME]) for each in (one, two)
    )
    found = with_adapters(variables, [one, two], gains)
    before = kernel(variables)
    expected = before + 0.7 * first + 0.2 * second
    np.testing.assert_allclose(kernel(found), expected, rtol=1e-6)
    published = with_adapters(variables, [one, two], gains, as_published=True)
    crossed = 0.14 * (
        np.outer(one.inner[NAME], two.outer[NAME])
        + np.outer(two.inner[NAME], one.outer[NAME])
    )
    squares = 0.49 * first + 0.04 * second
    np.testing.assert_allclose(kernel(published), before + squares + crossed, rtol=1e-6)
    for as_published in (False, True):
        alone = with_adapters(variables, [one], as_published=as_published)
        np.testing.assert_allclose(kernel(alone), before + first, rtol=1e-6)
    assert with_adapters(variables, []) == variables
    with pytest.raises(ValueError, match="expected 1 gains"):
        with_adapters(variables, [one], gains)


def test_an_adapter_applies_as_a_prompt_is_near_or_names_the_concept():
    text = jnp.asarray([[3.0, 0], [0, 2], [-1, 0], [1, 1]])
    tokens = np.array([[1, 9, 0], [1, 5, 0], [1, 2, 0], [5, 6, 0]])
    found = transport(text, tokens, jnp.asarray([2.0, 0]), np.array([5, 6]))
    np.testing.assert_allclose(found, [1.0, 0.5, 0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    "anchors", ["prompts", pytest.param("noise", marks=pytest.mark.slow)]
)
def test_the_first_step_writes_what_esd_would_change_where_it_reads(anchors):
    generator, variables = scene()
    rate = 1e-3
    keys = jax.random.split(KEY, 4)

    @tiny.quick_jit
    def learned(v):
        return spm(
            KEY,
            generator,
            v,
            PROMPTS,
            anchors=anchors,
            steps=1,
            learning_rate=rate,
            batch_size=2,
            ways=1,
        )

    start, after = blank(keys[2], variables), learned(variables)
    pool = erasing(keys[0], generator, variables, PROMPTS, ways=1)
    image = pool.inputs["image"]
    own, other = (told(image, 20, p[0]) for p in (PROMPTS.forget, PROMPTS.anchor))
    jac = jacobian(image, 20, PROMPTS.forget[0])
    # own − [other − (own − other)]; anchored points have no slope at the original.
    flat = np.einsum("mk,mkp->p", 2 * (own - other), jac)
    slope = kernel(variables._replace(params=ravel_pytree(variables.params)[1](flat)))
    written = np.asarray(start.inner[NAME]) @ slope
    expected = -rate * written / (np.abs(written) + 1e-8)
    np.testing.assert_allclose(after.outer[NAME], expected, atol=1e-5 * rate)
    np.testing.assert_allclose(after.inner[NAME], start.inner[NAME], atol=1e-12)


def test_unknown_anchors_are_refused():
    generator, variables = scene()
    with pytest.raises(ValueError, match="choose from prompts, noise"):
        spm(KEY, generator, variables, PROMPTS, anchors="images")
