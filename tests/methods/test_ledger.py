"""The ledger against a dictionary of rows; fingerprints against hashlib."""

import collections
import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.methods.ledger import (
    Ledger,
    empty_ledger,
    fingerprint,
    ledger_add,
    ledger_count,
    ledger_remove,
)
from unlearn_jax.solvers.refusal import RefusedError

pytestmark = pytest.mark.optimised

KEY = bytes(range(32))


def rows(count, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 3, 2)), np.arange(count) % 4


def prints(count, seed=0):
    return fingerprint(KEY, *rows(count, seed))


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def dictionary(ledger):
    names = map(tuple, ledger.fingerprints.tolist())
    return dict(zip(names, ledger.counts.tolist(), strict=True))


def test_a_print_is_the_keyed_hash_of_shapes_row_target_and_weight():
    inputs, targets = rows(3)
    found = fingerprint(KEY, inputs, targets, np.array([1.0, 0.1, 2.0]))
    for i, (weight, kind) in enumerate([(1.0, "<f4"), (0.1, "<f8"), (2.0, "<f4")]):
        kinds = [("<f8", (3, 2)), ("|u1", ()), (kind, ())]
        told = [inputs[i].astype("<f8"), targets[i].astype("u1")]
        told.append(np.asarray(weight, kind))
        expected = hashlib.blake2b(
            repr(kinds).encode() + b"".join(part.tobytes() for part in told),
            key=KEY,
            digest_size=16,
        ).digest()
        assert found[i].astype("<u8").tobytes() == expected


def test_equal_numbers_have_one_print_in_any_form():
    inputs, targets = rows(40)
    inputs = inputs.astype(np.float32)
    inputs[3, 0, 0], inputs[4] = 0.0, 0.5
    expected = fingerprint(KEY, inputs, targets)
    negative = inputs.copy()
    negative[3, 0, 0] = -0.0
    for form in (
        inputs.astype(np.float64),
        np.asfortranarray(inputs),
        np.repeat(inputs, 2, axis=0)[::2],
        inputs.astype(">f8"),
        jnp.asarray(inputs),
        negative,
    ):
        np.testing.assert_array_equal(fingerprint(KEY, form, targets), expected)
    np.testing.assert_array_equal(
        fingerprint(KEY, inputs, targets.astype(np.int16), np.ones(40)), expected
    )
    half = fingerprint(KEY, jnp.asarray(inputs[4:5], jnp.bfloat16), targets[4:5])
    np.testing.assert_array_equal(half, expected[4:5])


def test_a_print_does_not_depend_on_the_other_rows_of_the_request():
    # More rows than are hashed at a time, a part of them not exact in float32.
    inputs, targets = rows(1100)
    inputs[::3] = np.round(inputs[::3], 0)
    whole = fingerprint(KEY, inputs, targets)
    assert len(np.unique(whole, axis=0)) > 1000
    for i in (0, 1, 511, 512, 513, 1099):
        single = fingerprint(KEY, inputs[i : i + 1], targets[i : i + 1])
        np.testing.assert_array_equal(single[0], whole[i])


def test_whatever_differs_changes_the_print():
    inputs, targets = rows(1)
    moved = inputs.copy()
    moved[0, 2, 1] = np.nextafter(moved[0, 2, 1], 9)
    found = [
        fingerprint(KEY, inputs, targets),
        fingerprint(KEY, moved, targets),
        fingerprint(KEY, inputs, targets + 1),
        fingerprint(KEY, inputs, targets + 256),
        fingerprint(KEY, inputs, targets.astype(np.float32)),
        fingerprint(KEY, inputs, targets[:, None]),
        fingerprint(KEY, inputs.reshape(1, 2, 3), targets),
        fingerprint(KEY, inputs, targets, np.array([2.0])),
        fingerprint(KEY[::-1], inputs, targets),
    ]
    assert len(np.unique(np.concatenate(found), axis=0)) == len(found)


def test_rows_of_weight_zero_are_ignored_whatever_they_hold():
    inputs, targets = rows(4)
    weights = np.array([1.0, 0.0, 1.0, 0.0])
    inputs[1], inputs[3] = np.nan, np.inf
    found = fingerprint(KEY, inputs, targets, weights)
    np.testing.assert_array_equal(found[1::2], 0)
    ledger = ledger_add(empty_ledger(), found)
    assert same(ledger, ledger_add(empty_ledger(), found[::2]))
    assert same(ledger_remove(ledger, found[1::2]), ledger)
    assert same(ledger_remove(ledger, found), empty_ledger())
    np.testing.assert_array_equal(ledger_count(ledger, found), [1, 0, 1, 0])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_not_finite_is_refused(wrong, place):
    inputs, targets = rows(2)
    parts = [inputs, targets.astype(float), np.ones(2)]
    parts[place][1] = wrong
    with pytest.raises(ValueError, match=r"NaN or infinity|0 or more"):
        fingerprint(KEY, *parts)


@pytest.mark.parametrize("key", [b"", b"k" * 15, b"k" * 65])
def test_keys_of_another_length_are_refused(key):
    with pytest.raises(ValueError, match=f"16 to 64 bytes, got {len(key)}"):
        fingerprint(key, *rows(1))


def test_other_bad_requests_are_refused():
    inputs, targets = rows(3)
    with pytest.raises(ValueError, match="3 inputs, 2 targets and 3 weights"):
        fingerprint(KEY, inputs, targets[:2])
    with pytest.raises(ValueError, match=r"got -2\.0"):
        fingerprint(KEY, inputs, targets, np.array([1.0, -2.0, 1.0]))
    with pytest.raises(ValueError, match="complex128"):
        fingerprint(KEY, inputs.astype(complex), targets)


def test_the_ledger_is_a_multiset_under_mixed_requests():
    random = np.random.default_rng(1)
    known = prints(60)
    ledger, truth = empty_ledger(), collections.Counter()
    for _ in range(200):
        if random.random() < 0.55 or not truth:
            asked = known[random.integers(0, 60, random.integers(0, 9))]
            ledger = ledger_add(ledger, asked)
            truth.update(map(tuple, asked.tolist()))
        else:
            all_rows = np.array(sorted(truth.elements()), np.uint64)
            chosen = random.permutation(len(all_rows))[: random.integers(1, 9)]
            ledger = ledger_remove(ledger, all_rows[chosen])
            truth.subtract(map(tuple, all_rows[chosen].tolist()))
            truth = +truth
        assert dictionary(ledger) == truth
        names = list(map(tuple, ledger.fingerprints.tolist()))
        assert names == sorted(names)
    assert max(truth.values()) > 1
    counts = [truth[tuple(name)] for name in known.tolist()]
    np.testing.assert_array_equal(ledger_count(ledger, known), counts)


def test_deleted_rows_leave_no_print():
    known = prints(50)
    never = ledger_add(empty_ledger(), known[:30])
    was = ledger_add(ledger_add(empty_ledger(), known[30:]), known[:30])
    assert same(ledger_remove(was, known[30:]), never)


def test_a_refusal_names_the_rows_and_leaves_the_ledger():
    known, foreign = prints(10), prints(3, seed=1)
    ledger = ledger_add(empty_ledger(), np.concatenate([known, known[:1]]))
    before = Ledger(*(part.copy() for part in ledger))
    # Row 0 is within twice, row 1 once; positions 2 and 6 are foreign.
    asked = np.stack(
        [known[0], known[1], foreign[0], known[0], known[1], known[0], foreign[1]]
    )
    with pytest.raises(RefusedError) as refused:
        ledger_remove(ledger, asked)
    told = str(refused.value)
    assert "of 7 rows" in told
    assert "2 were never learned (positions 2, 6)" in told
    assert "2 were asked for more often than learned (positions 4, 5)" in told
    assert same(ledger, before)
    assert ledger_remove(ledger, asked[[0, 1, 3]]).counts.tolist() == [1] * 8


def test_a_row_asked_for_once_too_often_is_refused_alone():
    known = prints(3)
    ledger = ledger_add(empty_ledger(), known)
    with pytest.raises(
        RefusedError, match=r"0 were never.* and 1 were .*positions 3\)"
    ):
        ledger_remove(ledger, known[[0, 1, 2, 1]])
    with pytest.raises(RefusedError, match="1 were never learned"):
        ledger_remove(ledger_remove(ledger, known[:1]), known[:1])


def test_positions_count_rows_of_weight_zero_and_stop_after_a_few():
    foreign = prints(9)
    foreign[0] = 0
    with pytest.raises(RefusedError, match=r"of 8 rows") as refused:
        ledger_remove(empty_ledger(), foreign)
    assert "8 were never learned (positions 1, 2, 3, 4, 5, …)" in str(refused.value)


def test_a_row_is_removed_only_with_the_weight_it_was_learned_with():
    inputs, targets = rows(2)
    heavy = fingerprint(KEY, inputs, targets, np.array([2.0, 2.0]))
    light = fingerprint(KEY, inputs, targets)
    ledger = ledger_add(empty_ledger(), heavy)
    with pytest.raises(RefusedError, match="2 were never learned"):
        ledger_remove(ledger, light)
    assert not ledger_remove(ledger, heavy).counts.size


def test_prints_with_one_first_half_are_told_apart():
    # The hash makes this next to impossible, so it is made by hand.
    forged = np.array([[7, 9], [7, 1], [7, 5], [3, 5], [8, 0], [7, 2]], np.uint64)
    ledger = ledger_add(ledger_add(empty_ledger(), forged[:4]), forged[4:])
    expected = [[3, 5], [7, 1], [7, 2], [7, 5], [7, 9], [8, 0]]
    assert ledger.fingerprints.tolist() == expected
    np.testing.assert_array_equal(ledger_count(ledger, forged), 1)
    strange = np.array([[7, 0], [7, 3], [7, 10], [9, 9]], np.uint64)
    np.testing.assert_array_equal(ledger_count(ledger, strange), 0)
    left = ledger_remove(ledger, forged[[0, 5]]).fingerprints.tolist()
    assert left == [[3, 5], [7, 1], [7, 5], [8, 0]]


def test_arguments_are_left_as_they_are():
    known = prints(6)
    ledger = ledger_add(empty_ledger(), known)
    for part in (*ledger, known):
        part.flags.writeable = False
    ledger_add(ledger, known)
    assert not ledger_remove(ledger, known).counts.size
    assert ledger.counts.tolist() == [1] * 6
