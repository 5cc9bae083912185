"""Adapters kept apart, familiarity by two roads, a gate that opens in the middle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sequences
from tiny import quick_jit

from unlearn_jax.methods.gated_adapters import (
    Gate,
    familiar,
    familiarity,
    fit_gate,
    opened,
    overlap,
    switched,
)
from unlearn_jax.models.lora import lora


def adapters(*downs):
    return {
        f"k{i}": {"down": jnp.asarray(d), "up": jnp.ones((d.shape[-1], 3))}
        for i, d in enumerate(downs)
    }


def test_overlap_is_zero_for_columns_at_right_angles_and_moves_the_new_alone():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    old, new = adapters(basis[:, :2]), adapters(basis[:, 2:4])
    assert float(overlap(new, [])) == 0
    assert float(overlap(new, [old])) < 1e-28
    assert float(overlap(old, [old, new])) == pytest.approx(2)
    stacked = adapters(np.random.default_rng(1).normal(size=(4, 6, 2)))
    by_hand = sum(np.sum((a.T @ a) ** 2) for a in np.asarray(stacked["k0"]["down"]))
    assert float(overlap(stacked, [stacked])) == pytest.approx(by_hand)
    slopes = jax.grad(lambda a, b: overlap(a, [b]), argnums=(0, 1))(stacked, stacked)
    assert np.abs(slopes[0]["k0"]["down"]).max() > 0
    assert not np.any(slopes[1]["k0"]["down"])
    with pytest.raises(ValueError, match="same kernels"):
        overlap(old, [adapters(basis, basis)])


def test_what_a_request_holds_is_more_familiar_than_anything_else():
    random = np.random.default_rng(2)
    rows = random.normal(size=(40, 5)) + 3
    known = familiar(jnp.asarray(rows), damping=1e-9)
    far = random.normal(size=(40, 5)) - 3
    own, other = (familiarity(known, jnp.asarray(x)) for x in (rows, far))
    assert float(own.min()) > float(other.max())
    apart = rows - rows.mean(0)
    inverse = np.linalg.inv(np.cov(rows.T, bias=True))
    by_hand = -0.5 * np.einsum("ni,ij,nj->n", apart, inverse, apart) + 1000
    np.testing.assert_allclose(own, by_hand, rtol=1e-7)
    with pytest.raises(ValueError, match="texts of the request must be at least 1"):
        familiar(jnp.asarray(rows[:0]))
    with pytest.raises(ValueError, match="damping must be positive"):
        familiar(jnp.asarray(rows), damping=0.0)
    with pytest.raises(ValueError, match="held-out texts must be at least 2"):
        fit_gate(jnp.zeros(3), jnp.zeros(1))
    few = familiarity(familiar(jnp.asarray(rows[:3])), jnp.asarray(far))
    assert np.isfinite(few).all()


def test_the_gate_is_open_in_the_middle_and_nearly_shut_far_away():
    gate = fit_gate(jnp.array([1.0, 3.0]), jnp.array([-1.0, 1.0]))
    np.testing.assert_allclose(gate.means, [2, 0])
    scores = jnp.array([1.0, 1.5, 0.5, 60.0, -60.0])
    shares = opened(gate, scores)
    low, high = (1 / (1 + np.exp(-x)) for x in (-2, 8))
    np.testing.assert_allclose(shares[0], high)
    np.testing.assert_allclose(shares[1], shares[2])
    np.testing.assert_allclose(shares[3:], low)
    assert low < float(shares[1]) < high
    assert np.isfinite(opened(Gate(gate.means, jnp.zeros(())), scores)).all()


def test_switched_off_is_the_base_and_half_is_half_of_the_change():
    plain, rows = sequences.build(), sequences.tokens()
    made = lora(plain, lambda path: path[-2:] == ("down", "kernel"), rank=2)

    def all_of(variables, rows):
        start = made.begin(jax.random.key(1), variables)
        moved = start._replace(params=jax.tree.map(lambda x: x + 0.3, start.params))
        shares = [switched(moved, share) for share in (0.0, 0.5, 1.0)]
        kernels = [made.merge(v).params["blocks"][0]["down"]["kernel"] for v in shares]
        return plain.apply(variables, rows), made.model.apply(shares[0], rows), kernels

    base, off, (none, half, whole) = quick_jit(all_of)(sequences.variables(), rows)
    np.testing.assert_allclose(off, base, rtol=0, atol=1e-13)
    np.testing.assert_allclose(half - none, (whole - none) / 2, rtol=0, atol=1e-13)
    assert np.abs(whole - none).max() > 0.1
