"""The published editors: their formulas by numpy, and the traps of their releases."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from edits import D, keys, maps, whole

from unlearn_jax.methods.editing.image_to_image import image_to_image
from unlearn_jax.methods.editing.maps import outputs
from unlearn_jax.methods.editing.rank_one import rank_one, with_rank_ones
from unlearn_jax.methods.editing.rece import adversarial_keys, rece
from unlearn_jax.methods.editing.rows import edit_rows
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.methods.editing.state import edit_start
from unlearn_jax.methods.editing.time_edit import PromptPair, aligned, time_edit
from unlearn_jax.methods.editing.trce import first_end, trce
from unlearn_jax.methods.editing.uce import debias_targets, prompt_rows, uce

MAPS = maps()
W0 = whole(MAPS)
END = 9


def closed(rows, targets, weights, l2):
    """(λ W₀ + Σ w cᵀ v)(λ + Σ w cᵀ c)⁻¹ of the papers, with rows on the left."""
    c, v, w = np.concatenate(rows), np.concatenate(targets), np.concatenate(weights)
    square = l2 * np.eye(D) + (c * w[:, None]).T @ c
    return np.linalg.solve(square, l2 * W0 + (c * w[:, None]).T @ v)


def test_time_aligns_words_and_pads_with_the_end():
    # "the roses" and "the blue roses", padded to six.
    source, destination = [1, 3, 5, END, END, END], [1, 3, 4, 5, END, END]
    assert aligned(source, destination, end=END).tolist() == [0, 1, 3, 4, 5, 5]
    with pytest.raises(ValueError, match="token 5 of the source is not among"):
        aligned(source, [1, 3, 4, END, END, END], end=END)
    with pytest.raises(ValueError, match="with the end token 9"):
        aligned([1, 2], destination, end=END)


def test_time_by_the_formula():
    one, two = keys(6, 1), keys(6, 2)
    pair = PromptPair(
        one, two, np.array([1, 3, 5, END, END, END]), np.array([1, 3, 4, 5, END, END])
    )
    found = time_edit(MAPS, [pair], end=END, road="dual")
    anchors = two[[0, 1, 3, 4, 5, 5]]
    expected = closed([one], [anchors @ W0], [np.ones(6)], 0.1)
    np.testing.assert_allclose(whole(found), expected, atol=1e-12)
    with pytest.raises(ValueError, match="got no rows"):
        time_edit(MAPS, [], end=END)


def test_uce_by_the_formula():
    erase, anchor, preserve = keys(3, 1), keys(1, 2), keys(4, 3)
    found = uce(
        MAPS,
        erase,
        anchor,
        preserve,
        preserve_weight=0.25,
        road="dual",
        erase_weight=2.0,
    )
    targets = np.repeat(anchor @ W0, 3, axis=0)
    expected = closed(
        [erase, preserve],
        [targets, preserve @ W0],
        [np.full(3, 2.0), np.full(4, 0.25)],
        0.5,
    )
    np.testing.assert_allclose(whole(found), expected, atol=1e-12)


def test_uce_tensor_targets_have_no_part_along_the_old_output_of_any_map():
    erase, anchor = keys(2, 1), keys(1, 2)
    found = uce(MAPS, erase, anchor, technique="tensor", l2=1e-9, road="dual")
    for old, new in zip(jax.tree.leaves(MAPS), jax.tree.leaves(found), strict=True):
        before, after = erase @ np.asarray(old), erase @ np.asarray(new)
        np.testing.assert_allclose(np.sum(before * after, 1), 0, atol=1e-6)
        along = np.sum((anchor @ old) * before, 1) / np.sum(before**2, 1)
        expected = anchor @ np.asarray(old) - along[:, None] * before
        np.testing.assert_allclose(after, expected, atol=1e-6)
    with pytest.raises(ValueError, match="technique is 'project'"):
        uce(MAPS, erase, anchor, technique="project")


def test_rows_of_a_prompt():
    chosen = {rows: prompt_rows(3, 2, 6, rows=rows) for rows in ("subject", "suffix")}
    assert [each.tolist() for each in chosen["subject"]] == [[3], [2]]
    assert [each.tolist() for each in chosen["suffix"]] == [[3, 4, 5], [2, 3, 4]]
    assert prompt_rows(3, 2, 6, rows="all")[1].tolist() == list(range(6))
    with pytest.raises(ValueError, match="stand at 6 and 2"):
        prompt_rows(6, 2, 6)
    with pytest.raises(ValueError, match="rows is 'none'"):
        prompt_rows(3, 2, 6, rows="none")


def test_debiasing_does_not_pile_up():
    first = debias_targets(MAPS, keys(2), keys(3, 4), np.array([0.5, -1.0, 2.0]))
    expected = (keys(2) + np.array([0.5, -1.0, 2.0]) @ keys(3, 4)) @ W0
    np.testing.assert_allclose(first, expected, atol=1e-12)
    again = debias_targets(MAPS, keys(2), keys(3, 4), np.array([0.5, -1.0, 2.0]))
    np.testing.assert_array_equal(first, again)


def test_the_attack_in_closed_form_has_no_slope_and_beats_its_neighbours():
    edited, concept = maps(3), keys(2)

    def loss(attack):
        missing = outputs(edited, attack) - outputs(MAPS, concept)
        return jnp.sum(missing**2) + 0.3 * jnp.sum((attack - 1.0) ** 2)

    ones = np.ones((1, D))
    found = adversarial_keys(edited, MAPS, concept, l2=0.3, towards=ones)
    assert np.max(np.abs(jax.grad(loss)(found))) < 1e-11
    # A second road: gradient descent from nothing, at the rate of the largest slope.
    attack = jnp.zeros((2, D))
    most = np.linalg.norm(whole(edited), 2) ** 2 + 0.3
    slope = jax.jit(jax.grad(loss))
    for _ in range(400):
        attack = attack - slope(attack) / (2 * most)
    np.testing.assert_allclose(attack, found, atol=1e-2)
    near = adversarial_keys(MAPS, MAPS, concept, l2=1e-9)
    np.testing.assert_allclose(near, concept, atol=1e-6)
    with pytest.raises(ValueError, match="l2 is 0"):
        adversarial_keys(edited, MAPS, concept, l2=0.0)


def residual(tree, rows, anchor):
    """How far the outputs of rows are from where they should have gone."""
    return np.linalg.norm(np.asarray(outputs(tree, rows)) - anchor @ W0)


def test_the_published_reset_undoes_what_the_carried_sums_keep():
    erase, anchor = keys(2, 1), keys(1, 2)
    kept, reset = (
        tiny.quick_jit(partial(rece, rounds=1, as_published=published))(
            MAPS, erase, anchor
        )
        for published in (False, True)
    )
    start = whole(kept.maps[0])
    np.testing.assert_allclose(start, whole(reset.maps[0]), atol=1e-4)
    np.testing.assert_allclose(kept.attacks[0], reset.attacks[0], atol=1e-3)
    all_rows = [erase, *map(np.asarray, kept.attacks)]
    targets = [np.repeat(anchor @ W0, 2, axis=0)] * 2
    expected = closed(all_rows, targets, [np.ones(2)] * 2, 0.1)
    np.testing.assert_allclose(whole(kept.maps[-1]), expected, atol=1e-4)
    carried = residual(kept.maps[-1], erase, anchor)
    undone = residual(reset.maps[-1], erase, anchor)
    print(f"residual of the first erasure: {carried:.3f} carried, {undone:.3f} reset")
    assert undone > 2 * carried


def test_requests_one_by_one_with_the_reset_undo_the_earlier_ones():
    concepts, anchor = keys(6, 1), keys(1, 2)
    now = MAPS
    for concept in concepts:
        now = uce(now, concept[None], anchor, l2=0.5, road="dual")
    together = uce(MAPS, concepts, anchor, l2=0.5, road="dual")
    assert residual(now, concepts[:3], anchor) > 2 * residual(
        together, concepts[:3], anchor
    )


def test_trce_by_the_formula_and_its_end_token():
    bad, safe, captions = keys(3, 1), keys(3, 2), keys(12, 3)
    found = trce(MAPS, bad, safe, captions, l2=1e-10, road="dual")
    square = bad.T @ bad / 3 + 0.01 * captions.T @ captions / 12
    right = bad.T @ safe @ W0 / 3 + 0.01 * captions.T @ captions @ W0 / 12
    np.testing.assert_allclose(whole(found), np.linalg.solve(square, right), atol=1e-4)
    # Three words, the second of which takes two tokens: the end stands at 5, not 4.
    assert int(first_end(np.array([1, 2, 3, 4, 5, END, END]), END)) == 5
    assert first_end(np.array([[1, END], [1, 2]]), END).tolist() == [1, 2]


def test_image_to_image_by_the_formula_and_for_drawn_targets():
    retain, forget, noise = keys(9, 1), keys(4, 2), keys(3, 3, 13)
    found = whole(image_to_image(MAPS, retain, forget, noise, l2=1e-2, road="dual"))
    drawn = [np.tile(row, (4, 1)) for row in noise]  # each target for each image
    expected = closed(
        [retain, *[forget] * 3],
        [retain @ W0, *drawn],
        [np.full(9, 1 / 9), np.full(12, 0.2 / 12)],
        1e-2,
    )
    np.testing.assert_allclose(found, expected, atol=1e-11)
    more = np.concatenate([retain, retain])  # the share of a set does not move α
    doubled = image_to_image(MAPS, more, forget, noise, l2=1e-2, road="dual")
    np.testing.assert_allclose(whole(doubled), found, atol=1e-11)
    with pytest.raises(ValueError, match="expected codes of noise"):
        image_to_image(MAPS, retain, forget, np.zeros((0, 13)))


def test_rank_one_is_the_limit_of_a_heavy_row_and_adapters_add_up():
    state, key, targets = edit_start(MAPS, l2=0.1), keys(1), keys(1, 5, 13)
    change = rank_one(state, key, targets)
    found = with_rank_ones(MAPS, [change])
    np.testing.assert_allclose(outputs(found, key), targets, atol=1e-12)
    heavy = edit(MAPS, edit_rows(MAPS, key, targets, 1e9), l2=0.1, road="dual")
    np.testing.assert_allclose(whole(found), whole(heavy), atol=1e-7)
    assert np.linalg.matrix_rank(whole(found) - W0) == 1
    other = rank_one(state, keys(1, 8), targets)
    both = whole(with_rank_ones(MAPS, [change, other], [1.0, 0.5]))
    alone = whole(with_rank_ones(MAPS, [other], [0.5]))
    np.testing.assert_allclose(both - alone, whole(found) - W0, atol=1e-12)
    with pytest.raises(ValueError, match="expected 1 gains"):
        with_rank_ones(MAPS, [change], [])
    with pytest.raises(ValueError, match="expected one key"):
        rank_one(state, keys(2), targets)
