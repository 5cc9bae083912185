import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.solvers import powers
from unlearn_jax.solvers.extended import cut
from unlearn_kernels.target import targeting

# The processor treats what is below the least normal number as zero.
pytestmark = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def numbers(dtype):
    """Both ends of every binade, both signs, and what is no number."""
    info = np.finfo(dtype)
    places = np.arange(info.minexp, info.maxexp)
    mantissas = dtype([1, -1, 1.5, 2 - info.eps])
    usual = np.ldexp(mantissas[:, None], places[None]).ravel()
    return np.append(usual, dtype([0, np.inf, -np.inf, np.nan]))


@pytest.mark.parametrize("way", [powers.exponent, powers._by_bits, powers._by_halving])
def test_exponents_are_those_of_numpy(way, dtype):
    values = numbers(dtype)
    want = np.where(np.isfinite(values), np.frexp(values)[1], 0)
    np.testing.assert_array_equal(jax.jit(way)(values), want)


def test_powers_of_two_are_exact(dtype):
    most = np.finfo(dtype).maxexp - 2
    places = np.arange(-most, most + 1)
    found = jax.jit(lambda e: powers.power_of_two(e, dtype))(places)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.ldexp(dtype(1), places))


def test_programs_for_tpus_read_no_bits_of_float64(dtype):
    """There float64 has none, and the compiler would refuse them."""
    like = jax.ShapeDtypeStruct((3,), dtype)

    def scaled(values):
        return powers.power_of_two(powers.exponent(values), dtype)

    text = jax.jit(scaled).trace(like).lower(lowering_platforms=("tpu",)).as_text()
    assert "bitcast" not in text


def test_exact_sums_are_refused_where_float64_is_none(dtype):
    values = jnp.ones((2, 3), dtype)
    with targeting("tpu"):
        if dtype == np.float64:
            with pytest.raises(NotImplementedError, match="pair of float32"):
                cut(values, 9, 2, 0)
        else:
            cut(values, 9, 2, 0)
