"""Interpret-then-Deactivate: sparse codes, their training, and the gate, by numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.methods.editing.deactivation import (
    changes,
    deactivated,
    deactivation,
    gated,
    guarded,
    strongest,
)
from unlearn_jax.methods.editing.dictionary import (
    dictionary_loss,
    geometric_median,
    learn_dictionary,
)
from unlearn_jax.models.sparse_autoencoder import Dictionary, codes, decoded

FEATURES, WIDTH, ACTIVE = 12, 5, 3
RANDOM = np.random.default_rng(0)


def dictionary(seed=0):
    random = np.random.default_rng(seed)
    decoder = random.normal(size=(FEATURES, WIDTH))
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    rest = random.normal(size=WIDTH), 0.1 * random.normal(size=FEATURES)
    made = random.normal(size=(FEATURES, WIDTH)), decoder, *rest
    return Dictionary(*map(jnp.asarray, made))


def by_hand(made, values):
    """Codes of rows (n, d), one after another."""
    encoder, _, center, offset = map(np.asarray, made)
    found = np.zeros((len(values), FEATURES))
    for row, value in zip(found, values, strict=True):
        told = encoder @ (value - center) + offset
        for place in np.argsort(-told)[:ACTIVE]:
            row[place] = max(told[place], 0)
    return found


def test_codes_are_the_largest_responses_above_zero():
    made, rows = dictionary(), RANDOM.normal(size=(40, WIDTH))
    found = codes(made, rows, active=ACTIVE)
    expected = by_hand(made, rows)
    assert (expected > 0).sum(1).min() < ACTIVE  # some of the largest are below zero
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    again = expected @ np.asarray(made.decoder) + np.asarray(made.center)
    np.testing.assert_allclose(decoded(made, found), again, rtol=1e-10)
    with pytest.raises(ValueError, match="expected 1 to 12"):
        codes(made, rows, active=13)


def test_the_loss_is_shares_of_what_is_missed_and_its_slope_finite_differences():
    made, rows = dictionary(), RANDOM.normal(size=(30, WIDTH))
    dead = np.arange(FEATURES) >= 8
    found = dictionary_loss(made, rows, dead, active=ACTIVE, auxiliary=2)
    told = by_hand(made, rows)
    missed = rows - told @ np.asarray(made.decoder) - np.asarray(made.center)
    spread = ((rows - rows.mean(0)) ** 2).sum()
    np.testing.assert_allclose(found.missed, (missed**2).sum() / spread, rtol=1e-10)
    np.testing.assert_array_equal(found.fired, (told > 0).sum(0))

    def total(encoder):
        own = made._replace(encoder=encoder)
        loss = dictionary_loss(own, rows, dead, active=ACTIVE, auxiliary=2)
        return loss.missed

    slope = np.asarray(jax.grad(total)(made.encoder))
    along, step = RANDOM.normal(size=slope.shape), 1e-7
    ends = [float(total(made.encoder + s * step * along)) for s in (1, -1)]
    np.testing.assert_allclose(
        (slope * along).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-5
    )


def test_the_auxiliary_term_moves_dead_features_alone():
    made, rows = dictionary(), RANDOM.normal(size=(30, WIDTH))
    dead = np.arange(FEATURES) >= 8

    def extra(made):
        told = dictionary_loss(made, rows, dead, active=ACTIVE, auxiliary=2)
        return told.auxiliary

    slope = jax.grad(extra)(made)
    for name in ("encoder", "decoder", "offset"):
        moved = np.abs(np.asarray(getattr(slope, name))).reshape(FEATURES, -1).sum(1)
        assert np.all(moved[~dead] == 0), name
        assert moved[dead].max() > 0, name
    assert np.all(np.asarray(slope.center) == 0)
    none = np.zeros(FEATURES, bool)
    told = dictionary_loss(made, rows, none, active=ACTIVE, auxiliary=2)
    assert float(told.auxiliary) == 0


def test_the_median_has_no_shorter_sum_of_distances_nearby():
    rows = RANDOM.normal(size=(25, 3)) ** 3
    found = np.asarray(geometric_median(rows))

    def far(point):
        return np.linalg.norm(rows - point, axis=1).sum()

    assert far(found) < far(rows.mean(0))
    for step in 1e-3 * RANDOM.normal(size=(50, 3)):
        assert far(found) < far(found + step)


def test_learning_finds_directions_that_rows_are_made_of_with_columns_of_length_one():
    truth = np.linalg.qr(RANDOM.normal(size=(WIDTH, WIDTH)))[0]
    mix = RANDOM.uniform(1, 2, (400, WIDTH)) * (RANDOM.random((400, WIDTH)) < 0.4)
    rows = jnp.asarray(mix @ truth)

    def missed(steps):
        made = learn_dictionary(
            jax.random.key(0),
            rows,
            features=16,
            active=3,
            auxiliary=4,
            steps=steps,
            batch_size=64,
            learning_rate=3e-3,
        )
        lengths = np.linalg.norm(np.asarray(made.decoder), axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-6)
        return float(
            dictionary_loss(
                made, rows, np.zeros(16, bool), active=3, auxiliary=1
            ).missed
        )

    assert missed(400) < 0.3 * missed(1)
    with pytest.raises(ValueError, match="expected rows"):
        learn_dictionary(jax.random.key(0), rows[0])


def prompts(seed, count=4):
    return np.random.default_rng(seed).normal(size=(count, 3, WIDTH))


def test_features_are_the_concepts_strongest_that_no_other_prompt_has():
    made, own, others = dictionary(), prompts(1), prompts(2, 2)

    def chosen(values):
        found = set()
        for prompt in values:
            most = by_hand(made, prompt).max(0)
            found |= {f for f in np.argsort(-most)[:4] if most[f] > 0}
        return found

    expected = chosen(own) - chosen(others)
    assert expected
    found = deactivation(made, own, others, active=ACTIVE, top=4)
    assert set(np.flatnonzero(found.features)) == expected
    each = np.asarray(strongest(made, own, active=ACTIVE, top=4))
    assert set(np.flatnonzero(each.any(0))) == chosen(own)
    with pytest.raises(ValueError, match="of the concept's prompts alone"):
        deactivation(made, own, own, active=ACTIVE, top=4)


def test_every_token_but_the_first_is_decoded_with_its_features_turned_around():
    made, own = dictionary(), prompts(1)
    found = deactivation(made, own, prompts(2, 2), active=ACTIVE, top=4, gain=-8.0)
    moved = np.asarray(deactivated(found, own, active=ACTIVE))
    inside = np.asarray(found.features)
    for prompt, after in zip(own, moved, strict=True):
        told = by_hand(made, prompt)
        told[1:, inside] *= -8
        expected = told @ np.asarray(made.decoder) + np.asarray(made.center)
        np.testing.assert_allclose(after, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("as_published", [False, True])
def test_the_gate_lets_pass_what_changes_less_than_the_least_target(as_published):
    made, own, others = dictionary(), prompts(1), prompts(2, 2)
    options = {"active": ACTIVE, "top": 4, "as_published": as_published}
    found = deactivation(made, own, others, **options)
    square = np.asarray(changes(own, deactivated(found, own, active=ACTIVE)))
    of_each = square.max(1) if as_published else square.mean(1)
    np.testing.assert_allclose(found.threshold, 0.99 * of_each.min(), rtol=1e-9)
    seen = gated(found, np.concatenate([own, others]), active=ACTIVE)
    means = changes(others, deactivated(found, others, active=ACTIVE)).mean(1)
    expected = np.concatenate([square.mean(1), means]) >= float(found.threshold)
    np.testing.assert_array_equal(seen.fired, expected)
    if not as_published:
        assert np.all(seen.fired[: len(own)])
    untouched = ~np.asarray(seen.fired)
    values = np.concatenate([own, others])
    np.testing.assert_array_equal(np.asarray(seen.values)[untouched], values[untouched])


def test_embeddings_of_a_prompt_that_passes_are_its_own():
    made, own = dictionary(), prompts(1)
    found = deactivation(made, own, prompts(2, 2), active=ACTIVE, top=4)
    values = jnp.asarray(np.concatenate([own[:1], 1e-3 + 0 * own[:1]]))
    found = found._replace(
        threshold=changes(
            values[:1], deactivated(found, values[:1], active=ACTIVE)
        ).mean()
    )
    tokens = jnp.arange(2)[:, None]
    told = guarded(
        found,
        tokens,
        lambda t: 7 * jnp.ones((len(t), 3, WIDTH)),
        lambda t: values[t[:, 0]],
        lambda t, v: 2 * v,
        active=ACTIVE,
    )
    seen = gated(found, values, active=ACTIVE)
    assert bool(seen.fired[0])
    np.testing.assert_array_equal(told[0], 2 * seen.values[0])
    if not bool(seen.fired[1]):
        np.testing.assert_array_equal(told[1], 7 * np.ones((3, WIDTH)))
