"""Each term against its formula, written per token in numpy; and their signs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.methods.forget_terms import (
    AS_PUBLISHED,
    DIVERGENCES,
    Seen,
    ascent,
    ce_u,
    dpo,
    flat,
    mismatch,
    npo,
    refusal,
    simnpo,
    undial,
    weighted_ascent,
)
from unlearn_jax.train.asked import asked

TARGETS = np.array([[-1, 2, 0, 3], [1, -1, -1, -1]], np.int32)
OTHERS = np.array([[-1, 1, 1, -1], [0, 2, -1, -1]], np.int32)


@pytest.fixture(scope="module")
def logits():
    random = np.random.default_rng(0)
    return {
        name: random.normal(size=(2, 4, 5)) for name in ("now", "old", "other", "was")
    }


def seen_of(logits, memory):
    now = asked(jnp.asarray(logits["now"]), TARGETS)
    other = asked(jnp.asarray(logits["other"]), OTHERS)
    old, was = (
        asked(jnp.asarray(logits["old"]), TARGETS),
        asked(jnp.asarray(logits["was"]), OTHERS),
    )
    if memory == "likelihood":
        return Seen(now, old.nll, other, was.nll)
    return Seen(now, old.outputs, other, was.outputs)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def per_token(z, targets):
    """For each example the list of (logits, label) that are asked for."""
    return [
        [(z[i, s], y) for s, y in enumerate(row) if y >= 0]
        for i, row in enumerate(targets)
    ]


def nll(pairs):
    return -sum(np.log(softmax(z)[y]) for z, y in pairs)


def softplus(x):
    return np.log1p(np.exp(x))


def by_hand(name, logits):
    values = []
    for now, old, other, was in zip(
        *(
            per_token(logits[k], t)
            for k, t in (
                ("now", TARGETS),
                ("old", TARGETS),
                ("other", OTHERS),
                ("was", OTHERS),
            )
        ),
        strict=True,
    ):
        u, v = nll(now) / len(now), nll(other) / len(other)
        p = np.array([softmax(z)[y] for z, y in now])
        q = np.array([softmax(z)[y] for z, y in other])
        if name == "undial":
            values.append(0.0)
            for (z, y), (z0, _) in zip(now, old, strict=True):
                lowered = z0.copy()
                lowered[y] -= 3
                values[-1] -= softmax(lowered) @ np.log(softmax(z)) / len(now)
            continue
        values.append(
            {
                "ascent": -u,
                "npo": 2 / 0.5 * softplus(-0.5 * (nll(now) - nll(old))),
                "npo_mean": 2 / 0.5 * softplus(-0.5 * (nll(now) - nll(old)) / len(now)),
                "simnpo": 2 / 0.5 * softplus(-0.5 * (u - 0.3)),
                "dpo": 2
                / 0.5
                * softplus(-0.5 * (nll(now) - nll(old) - nll(other) + nll(was))),
                "refusal": v,
                "mismatch": -0.5 * u + 2 * v,
                "ce_u": -np.mean(
                    [
                        sum(
                            softmax(np.delete(z, y))[j]
                            * np.log(softmax(z)[np.delete(np.arange(5), y)[j]])
                            for j in range(4)
                        )
                        for z, y in now
                    ]
                ),
                "wga": np.mean(p**2 * np.log(p)),
                "satimp": np.mean(p**2 * (1 - p) ** 3 * np.log(p)),
                "flat": -np.tanh(q.mean()) / 2 + np.tanh(p.mean()) / 2,
            }[name]
        )
    return np.array(values)


TERMS = {
    "ascent": ascent(),
    "npo": npo(0.5),
    "npo_mean": npo(0.5, "token_mean"),
    "simnpo": simnpo(0.5, 0.3),
    "dpo": dpo(0.5),
    "refusal": refusal(),
    "mismatch": mismatch(0.5, 2.0),
    "undial": undial(3.0),
    "ce_u": ce_u(),
    "wga": weighted_ascent(2.0, 0.0),
    "satimp": weighted_ascent(2.0, 3.0),
    "flat": flat("total_variation"),
}


@pytest.mark.parametrize("name", TERMS)
def test_terms_are_their_formulas(name, logits):
    term = TERMS[name]
    found = term.loss(seen_of(logits, term.remembers))
    np.testing.assert_allclose(found, by_hand(name, logits), rtol=1e-12)


def slope(term, seen):
    def total(outputs):
        return jnp.sum(term.loss(seen._replace(now=seen.now._replace(outputs=outputs))))

    return jax.grad(total)(seen.now.outputs)


@pytest.mark.parametrize("beta", [1e-6, 0.1, 5.0])
def test_at_the_original_npo_is_ascent_on_the_sum_whatever_beta(beta, logits):
    seen = seen_of({**logits, "old": logits["now"]}, "likelihood")
    whole = jax.grad(lambda z: -jnp.sum(seen.now._replace(outputs=z).nll))(
        seen.now.outputs
    )
    np.testing.assert_allclose(slope(npo(beta), seen), whole, rtol=1e-12, atol=1e-14)


def test_far_away_npo_is_ascent_for_small_beta_and_fades_for_large(logits):
    seen = seen_of(logits, "likelihood")
    gap = seen.now.nll - seen.before
    whole = jax.grad(lambda z: -jnp.sum(seen.now._replace(outputs=z).nll))(
        seen.now.outputs
    )
    np.testing.assert_allclose(slope(npo(1e-9), seen), whole, rtol=1e-7, atol=1e-12)
    weights = 2 / (1 + np.exp(2.0 * np.asarray(gap)))
    np.testing.assert_allclose(
        slope(npo(2.0), seen), weights[:, None, None] * whole, rtol=1e-10, atol=1e-14
    )


def test_weighted_ascent_without_weights_is_ascent(logits):
    seen = seen_of(logits, "nothing")
    given = slope(weighted_ascent(0.0, 0.0), seen)
    np.testing.assert_allclose(given, slope(ascent(), seen), rtol=1e-12)


def test_weights_of_ascent_are_held_fixed(logits):
    seen = seen_of(logits, "nothing")
    p = np.exp(np.asarray(seen.now.log_likelihoods))[..., None]
    given = slope(weighted_ascent(1.0, 0.0), seen)
    np.testing.assert_allclose(given, p * slope(ascent(), seen), rtol=1e-12)


def test_ce_u_has_the_slope_p_minus_q(logits):
    seen = seen_of(logits, "nothing")
    given = np.asarray(slope(ce_u(), seen))
    z, y = logits["now"][1, 0], TARGETS[1, 0]
    without = z.copy()
    without[y] = -np.inf
    np.testing.assert_allclose(given[1, 0], softmax(z) - softmax(without), rtol=1e-10)


def probability_slopes(name):
    """d loss / dP and d loss / dP' at probabilities in the middle."""
    reward, price = {**DIVERGENCES, **AS_PUBLISHED}[name]
    return jax.grad(price)(0.4), -jax.grad(reward)(0.6)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_lower_what_is_forgotten_and_raise_the_other(name):
    forgotten, other = probability_slopes(name)
    assert forgotten > 0
    assert other < 0


@pytest.mark.parametrize("name", AS_PUBLISHED)
def test_what_is_only_as_published_points_the_wrong_way_somewhere(name):
    forgotten, other = probability_slopes(name)
    assert forgotten < 0 or other > 0


@pytest.mark.parametrize("name", TERMS)
def test_slopes_are_finite_where_labels_are_certain(name):
    sure = 200.0 * jax.nn.one_hot(np.maximum(TARGETS, 0), 5)
    logits = {k: np.asarray(sure) for k in ("now", "old", "other", "was")}
    term = TERMS[name]
    given = slope(term, seen_of(logits, term.remembers))
    assert np.isfinite(given).all()


def test_classes_are_sequences_of_one_token(logits):
    rows = logits["now"][:, 0]
    alone = asked(jnp.asarray(rows), np.array([3, 1], np.int32))
    longer = asked(jnp.asarray(rows[:, None]), np.array([[3], [1]], np.int32))
    np.testing.assert_array_equal(alone.nll, longer.nll)
    with pytest.raises(ValueError, match="regression has no labels"):
        asked(jnp.asarray(rows), np.zeros((2, 3)))
