import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from sequences import LENGTH, SIZES, WORDS, build, tokens, variables, written_out
from tiny import quick_jit

from unlearn_jax import tree
from unlearn_jax.models import MODELS
from unlearn_jax.models.generate import generate
from unlearn_jax.models.rotary import halves_from_pairs, pairs_from_halves, rotate
from unlearn_jax.models.stacking import stack_blocks, unstack_blocks
from unlearn_jax.models.stream import below
from unlearn_jax.models.transformer import Shape, of_shape


@pytest.mark.parametrize("tied", [True, False])
def test_the_forward_pass_is_the_one_written_out_in_numpy(tied):
    known, rows = variables(tied), tokens()
    got = quick_jit(build(tied=tied).apply)(known, rows)
    expected = np.stack([written_out(known.params, row) for row in rows])
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_padding_and_packing_change_no_output():
    row = tokens(1)[0]
    packed = [*row[:2], -1, *row[:3], -1]  # two texts
    rows = np.array([packed, [*row[:3], -1, -1, -1, -1], [-1, -5, -1, -1, *row[:3]]])
    got = quick_jit(build().apply)(variables(), rows.astype(np.int32))
    expected = written_out(variables().params, row[:3])
    for at, first, count in ((0, 0, 2), (0, 3, 3), (1, 0, 3), (2, 4, 3)):
        found = got[at, first : first + count]
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=1e-12)
    assert np.isfinite(got).all()


def test_scanned_and_listed_blocks_begin_alike_and_compute_alike():
    def outputs(key, rows):
        listed, stacked = build(), build(scan=True, remat=True)
        first, second = listed.init(key), stacked.init(key)

        def total(params, model):
            out = model.apply(first._replace(params=params), rows)
            return jnp.sum(jnp.sin(out)), out

        found = [
            jax.grad(total, has_aux=True)(own.params, model)
            for own, model in ((first, listed), (second, stacked))
        ]
        return first, second, found

    first, second, found = quick_jit(outputs)(jax.random.key(2), tokens())
    assert_trees_close(stack_blocks(first), second, rtol=0)
    assert_trees_close(unstack_blocks(second), first, rtol=0)
    (own, one), (other, two) = found
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-12)
    stacked = stack_blocks(first._replace(params=own)).params
    assert_trees_close(stacked, other, rtol=0, atol=1e-12)
    for change, given in ((stack_blocks, second), (unstack_blocks, first)):
        with pytest.raises(ValueError, match="the other form already"):
            change(given)


def test_the_program_of_scanned_blocks_does_not_grow_with_depth():
    def equations(depth):
        model = build(depth=depth, scan=True)
        known = jax.eval_shape(model.init, jax.random.key(0))
        grad = jax.grad(lambda known, rows: jnp.sum(model.apply(known, rows)))
        rows = jax.ShapeDtypeStruct((2, LENGTH), jnp.int32)
        return str(jax.make_jaxpr(grad)(known, rows)).count("\n")

    assert equations(2) == equations(12)


@pytest.mark.parametrize("scan", [False, True])
def test_going_on_with_kept_keys_gives_the_outputs_of_the_whole(scan):
    model, rows = build(scan=scan), tokens()
    rows[0, :2] = -1
    rows[1, 3] = -1

    def in_parts(known, rows):
        cache = model.decoding.empty(3, LENGTH + 2)  # more room than is needed
        found = []
        for first, last in ((0, 4), (4, 5), (5, 7)):
            out, cache = model.decoding.extend(known, cache, rows[:, first:last])
            found.append(out)
        return jnp.concatenate(found, 1), model.apply(known, rows)

    parts, whole = quick_jit(in_parts)(variables(scan=scan), rows)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)


def test_the_head_on_the_features_is_the_model():
    for tied in (True, False):
        model, known = build(tied=tied), variables(tied)
        features, outputs = quick_jit(
            lambda v, x, m=model: (m.features(v, x), m.apply(v, x))
        )(known, tokens())
        params = known.params
        head = params["tokens"]["embedding"].T if tied else params["head"]["kernel"]
        np.testing.assert_allclose(features @ head, outputs, rtol=0, atol=1e-12)


def test_computing_in_bfloat16_changes_the_arithmetic_only():
    shape = jax.ShapeDtypeStruct((2, LENGTH), jnp.int32)
    half = build(dtype=jnp.float32, compute_dtype=jnp.bfloat16, scan=True)
    known = jax.eval_shape(half.init, jax.random.key(0))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(known)} == {"float32"}
    assert jax.eval_shape(half.features, known, shape).dtype == "bfloat16"
    outputs = jax.eval_shape(half.apply, known, shape)
    assert (outputs.shape, outputs.dtype) == ((2, LENGTH, WORDS), "float32")
    whole = build(dtype=jnp.float32, scan=True)
    drawn = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), variables(scan=True))
    got, expected = quick_jit(lambda v, x: (half.apply(v, x), whole.apply(v, x)))(
        drawn, tokens()
    )
    apart = np.abs(got - expected).max()
    assert 0 < apart < 5e-2 * np.abs(expected).max()


LLAMA = {"heads": 32, "groups": 8, "hidden": 8192, "width": 2048, "depth": 16}
SMOLLM = {"heads": 9, "groups": 3, "hidden": 1536, "width": 576, "depth": 30}


@pytest.mark.parametrize(
    ("vocabulary", "options", "count"),
    [
        (49_152, SMOLLM, 134_515_008),
        (128_256, LLAMA, 1_235_814_400),
        (
            32,
            {"depth": 1, "width": 32, "heads": 2, "tied": False},
            2 * 1024 + 4 * 1024 + 3 * 32 * 88 + 96,
        ),
    ],
)
def test_parameters_are_counted_exactly(vocabulary, options, count):
    model = MODELS["transformer"]((64,), vocabulary, scan=True, **options)
    assert tree.size(jax.eval_shape(model.init, jax.random.key(0)).params) == count


def test_rotary_positions_turn_by_differences_and_both_orders_are_inverse():
    random = np.random.default_rng(0)
    query, key = random.standard_normal((2, 1, 3, 6))
    for shift in (0, 40):
        at = np.array([[shift, shift + 1, shift + 5]])
        turned = [rotate(jnp.asarray(x), jnp.asarray(at), 100.0) for x in (query, key)]
        if shift == 0:
            first = turned[0][0] @ turned[1][0].T
    np.testing.assert_allclose(turned[0][0] @ turned[1][0].T, first, atol=1e-12)
    kernel = jnp.asarray(random.standard_normal((5, 12)))
    halves = halves_from_pairs(kernel, 2)
    first = kernel[:, jnp.array([0, 2, 4, 1, 3, 5])]
    np.testing.assert_array_equal(halves[:, :6], first)
    np.testing.assert_array_equal(pairs_from_halves(halves, 2), kernel)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, LENGTH + 1), np.int32), "have 8 tokens and the context is 7"),
        (np.zeros((2, LENGTH), np.float32), r"got float32\[2,7\]|float32\[2, 7\]"),
        (np.zeros((2, 3, LENGTH), np.int32), r"\(n, t\) as signed integers"),
    ],
)
def test_inputs_that_are_no_tokens_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(build().apply, variables(), rows)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((8, 8, 1), {}, r"sequences of shape \(tokens,\)"),
        ((8,), {**SIZES, "groups": 3}, "heads a multiple of groups"),
        ((8,), {**SIZES, "size": 3}, "an even size"),
        ((8,), {**SIZES, "depth": 0}, "at least 1 of each"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        MODELS["transformer"](shape, 5, **options)


def test_frozen_blocks_compute_the_same_and_have_no_gradient():
    rows, known = tokens(), stack_blocks(variables())
    shape = Shape(WORDS, LENGTH, **SIZES, scan=True)
    models = [of_shape(s, dtype=jnp.float64) for s in (shape, shape._replace(frozen=1))]

    def both(known, rows):
        def total(params, model):
            out = model.apply(known._replace(params=params), rows)
            return jnp.sum(jnp.sin(out)), out

        return [jax.grad(total, has_aux=True)(known.params, m) for m in models]

    (whole, first), (part, second) = quick_jit(both)(known, rows)
    np.testing.assert_array_equal(first, second)
    lower, upper = (
        jax.tree.map(lambda x, at=at: x[at], part["blocks"]) for at in (0, 1)
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(lower))
    own = jax.tree.map(lambda leaf: leaf[1], whole["blocks"])
    assert_trees_close(upper, own, rtol=0, atol=1e-12)
    for wrong in ({"frozen": 2}, {"frozen": 1, "scan": False}):
        with pytest.raises(ValueError, match="to be frozen"):
            of_shape(shape._replace(**wrong))


def test_texts_go_on_alike_over_frozen_blocks():
    rows, known = tokens()[:, :3], stack_blocks(variables())
    shape = Shape(WORDS, LENGTH, **SIZES, scan=True)
    models = [of_shape(s, dtype=jnp.float64) for s in (shape, shape._replace(frozen=1))]

    def both(known, rows):
        key = jax.random.key(0)
        return [generate(key, model, known, rows, steps=3) for model in models]

    told = quick_jit(both)(known, jnp.asarray(rows))
    np.testing.assert_array_equal(*told)


def test_what_frozen_blocks_compute_stands_for_the_tokens():
    rows, known = tokens(), stack_blocks(variables())
    rows[0, 4:] = rows[1, :2] = rows[2, 3] = -1
    shape = Shape(WORDS, LENGTH, **SIZES, scan=True, frozen=1)
    model = of_shape(shape, dtype=jnp.float64)
    run = below(shape, dtype=jnp.float64)

    def both(known, rows):
        def total(params, inputs):
            out = model.apply(known._replace(params=params), inputs)
            return jnp.sum(jnp.sin(out)), out

        inputs = rows, run(known, rows)
        return [jax.grad(total, has_aux=True)(known.params, own) for own in inputs]

    whole, part = quick_jit(both)(known, rows)
    assert_trees_close(whole, part, rtol=0, atol=1e-12)
    wide = jax.eval_shape(run, known, rows)
    assert wide.shape == (3, LENGTH, SIZES["width"] + 1)
    for other in (shape._replace(frozen=0), shape._replace(width=12)):
        with pytest.raises(ValueError, match="over frozen blocks what"):
            jax.eval_shape(of_shape(other, dtype=jnp.float64).apply, known, wide)
    for wrong in (shape._replace(frozen=0), shape._replace(vocabulary=3000)):
        with pytest.raises(ValueError, match="below was asked for"):
            below(wrong, dtype=jnp.float16)
