import jax
import numpy as np
import pytest

from unlearn_jax.data.forget import random_set
from unlearn_jax.evaluation.membership import generator
from unlearn_jax.keys import is_key, leading_keys, seed_words


def test_raw_and_typed_keys_of_a_seed_are_one():
    typed, raw = jax.random.key(3), jax.random.PRNGKey(3)
    assert is_key(typed)
    assert is_key(raw)
    assert seed_words(typed) == seed_words(raw)
    np.testing.assert_array_equal(random_set(typed, 50, 3), random_set(raw, 50, 3))
    assert generator(typed).random() == generator(raw).random()


def test_arrays_of_keys_are_told_from_a_key():
    typed = jax.random.split(jax.random.key(0), 4)
    raw = jax.random.split(jax.random.PRNGKey(0), 4)
    assert leading_keys(typed) == leading_keys(raw) == (4,)
    assert leading_keys(np.zeros(3)) is None


@pytest.mark.parametrize(
    "seed", [-1, 2.5, "a", True, np.zeros(3), jax.random.split(jax.random.key(0), 2)]
)
def test_what_is_neither_key_nor_seed_is_told(seed):
    with pytest.raises(ValueError, match="expected a non-negative integer or a single"):
        random_set(seed, 50, 3)
