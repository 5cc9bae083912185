"""ACU: what it forgets was never there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.data.digits import digits
from unlearn_jax.methods.analytic import analytic, fit_heads, frozen_features
from unlearn_jax.models import MODELS
from unlearn_jax.models.random_features import directions, expand, random_kernel
from unlearn_jax.solvers.refusal import RefusedError
from unlearn_jax.solvers.ridge_gram import gram_remove
from unlearn_jax.types import Batch

WIDTH, D = 48, 64
SECRET = b"a key of the tests"
DIGITS = digits().splits.train
X = np.asarray(DIGITS.inputs).reshape(-1, D)[:300]
Y = np.asarray(DIGITS.targets)[:300]


def acu(form="gram", **options):
    key = jax.random.key(0)
    settings = {"width": WIDTH, "l2": 0.1, "form": form} | options
    return analytic(lambda x: x, D, key=key, secret=SECRET, **settings)


def learnt(head, chosen):
    return head.learn(head.start(), X[chosen], Y[chosen])


def same_bits(a, b):
    return jax.tree.all(
        jax.tree.map(
            lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b
        )
    )


@pytest.mark.slow
def test_a_mixed_stream_ends_where_a_fresh_fit_begins():
    head = acu()
    random = np.random.default_rng(0)
    classes = [np.flatnonzero(label == Y) for label in range(5)]
    state = learnt(head, np.concatenate(classes[:3]))
    state = head.learn(state, X[classes[4]], Y[classes[4]])
    state = head.forget(state, X[classes[1]], Y[classes[1]])
    assert list(state.labels) == [0, 2, 4]
    late = np.concatenate([classes[3], classes[1][:4]])
    state = head.learn(state, X[late], Y[late])
    assert list(state.labels) == [0, 1, 2, 3, 4]
    within = np.concatenate([*(classes[c] for c in (0, 2, 4)), late])
    user = random.permutation(within)[:37]
    state = head.forget(state, X[user], Y[user])
    left = random.permutation(np.setdiff1d(within, user))
    expected = learnt(head, left)
    assert bool(state.ridge.exact)
    assert same_bits(state, expected)
    assert list(state.counts) == [np.sum(Y[left] == label) for label in state.labels]
    own = state.labels[np.argmax(head.predict(state, X[left]), 1)]
    assert np.mean(own == Y[left]) > 0.9


@pytest.mark.parametrize("form", ["gram", "inverse"])
def test_predictions_are_those_of_ridge_regression_on_the_rest(form):
    head = acu(form)
    state = head.forget(learnt(head, np.arange(200)), X[:50], Y[:50])
    rows = np.maximum(directions(X) @ np.asarray(state.kernel), 0)
    rows = np.round(rows * 2.0**16) / 2.0**16
    onehot = (Y[50:200, None] == state.labels).astype(float)
    kept = rows[50:200]
    weight = np.linalg.solve(kept.T @ kept + 0.1 * np.eye(WIDTH), kept.T @ onehot)
    np.testing.assert_allclose(
        head.predict(state, X), rows @ weight, atol=1e-9, rtol=1e-9
    )


def test_deletion_of_everything_is_the_start():
    head = acu()
    everything = np.arange(120)
    state = head.forget(learnt(head, everything), X[everything], Y[everything])
    assert same_bits(state, head.start())


def test_regression_with_several_outputs():
    targets = np.stack([X.sum(1), X[:, 5] - 3, np.sin(X[:, 9])], axis=1)
    head = acu(outputs=3)
    state = head.learn(head.start(), X, targets)
    state = head.forget(state, X[:40], targets[:40])
    expected = head.learn(head.start(), X[40:], targets[40:])
    np.testing.assert_allclose(
        state.ridge.weight, expected.ridge.weight, rtol=1e-13, atol=1e-16
    )
    with pytest.raises(ValueError, match="expected targets"):
        head.learn(state, X, targets[:, 0])


def test_weighted_rows():
    head = acu()
    weights = np.random.default_rng(3).uniform(0.5, 2, 300)
    state = head.learn(head.start(), X, Y, weights)
    state = head.forget(state, X[:30], Y[:30], weights[:30])
    expected = head.learn(head.start(), X[30:], Y[30:], weights[30:])
    np.testing.assert_allclose(
        state.ridge.weight, expected.ridge.weight, rtol=1e-9, atol=1e-12
    )
    with pytest.raises(RefusedError, match="never learned"):
        head.forget(state, X[30:31], Y[30:31])


@pytest.mark.parametrize(
    "form",
    [
        "gram",
        pytest.param("inverse", marks=pytest.mark.slow),
        pytest.param("kept", marks=pytest.mark.slow),
    ],
)
def test_adversarial_requests_are_exact_or_refused(form):
    """1,000 requests: every one leaves the fit of the rows that should be within."""
    head = acu(form, width=12)
    reference = acu(width=12)
    random = np.random.default_rng(4)
    shown, labels = X[:40].copy(), Y[:40] % 2
    shown[35:] *= 1e12  # directions have no length: an outlier is a row like others
    state, within = head.start(), np.zeros(40, int)
    applied = refused = 0
    for step in range(1000):
        kind = random.integers(0, 8)
        change, rows, bad = 1, random.integers(0, 40, random.integers(1, 6)), False
        if kind == 0:
            change = -1
        elif kind == 1:
            change, rows = -1, np.repeat(np.arange(40), within)  # everything, n > f
        elif kind == 2:
            change, rows = -1, np.repeat(rows[:1], 2)
        elif kind == 3:
            rows = np.repeat(rows, 3)
        elif kind in (4, 5) and within.any():
            change, rows = -1, random.permutation(np.repeat(np.arange(40), within))[:4]
        if kind == 6:
            bad = True
        inputs, given = shown[rows].copy(), labels[rows].copy()
        if bad and len(rows):
            inputs[0, 0] = np.nan
        amount = np.bincount(rows, minlength=40)
        allowed = len(rows) > 0 and not bad and np.all(within + change * amount >= 0)
        act = head.learn if change == 1 else head.forget
        before = state
        try:
            state = act(state, inputs, given)
        except RefusedError:
            refused += 1
            assert not allowed or form == "inverse"
            assert state is before
        except ValueError:
            assert not len(rows)
        else:
            applied += 1
            assert allowed
            within = within + change * amount
        if step % 50 == 49:
            rest = np.repeat(np.arange(40), within)
            if len(rest):
                expected = reference.learn(reference.start(), shown[rest], labels[rest])
                np.testing.assert_allclose(
                    state.ridge.weight, expected.ridge.weight, rtol=1e-8, atol=1e-9
                )
    assert applied > 300
    assert refused > 100


def test_frozen_features_are_the_same_in_any_batch():
    model = MODELS["cnn"]((8, 8, 1), 10)
    variables = model.init(jax.random.key(1))
    features = frozen_features(model, variables, batch_size=32)
    inputs = X[:70].reshape(-1, 8, 8, 1)
    together = features(inputs)
    order = np.random.default_rng(0).permutation(70)
    np.testing.assert_array_equal(features(inputs[order]), together[order])
    np.testing.assert_array_equal(features(inputs[13:14]), together[13:14])
    np.testing.assert_allclose(together, model.features(variables, inputs), rtol=1e-4)


def test_many_heads_at_once_forget_together():
    kernels = jnp.stack([random_kernel(jax.random.key(i), D, 16) for i in range(3)])
    unit, onehot = directions(X[:60]), np.eye(10)[Y[:60]]
    masks = np.random.default_rng(0).integers(0, 2, (3, 60)).astype(float)
    masks[:, :5] = 1
    fit = tiny.quick_jit(lambda k, m: fit_heads(k, unit, onehot, m, l2=0.1, slices=1))
    gone = masks.copy()
    gone[:, :5] = 0
    expected = fit(kernels, gone)

    @tiny.quick_jit
    @jax.vmap
    def forget(state, kernel):
        rows = Batch(expand(unit[:5], kernel), onehot[:5], np.ones(5))
        return gram_remove(state, rows, slices=1)

    after = forget(fit(kernels, masks), kernels)
    assert np.all(after.exact)
    assert same_bits(after.gram, expected.gram)
    assert same_bits(after.moment, expected.moment)
    np.testing.assert_allclose(after.weight, expected.weight, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "both"}, "choose from gram, inverse, kept"),
        ({"width": 20_000}, "width of 1 to 16384"),
        ({"l2": -1.0}, "l2 is -1.0"),
        ({"outputs": 0}, "outputs is 0"),
        ({"secret": b"short"}, "16 to 64 bytes"),
    ],
)
def test_impossible_settings_are_named(options, message):
    settings = {"key": jax.random.key(0), "secret": SECRET, "width": 8} | options
    with pytest.raises(ValueError, match=message):
        analytic(lambda x: x, D, **settings)


def test_rows_of_wrong_kind_are_named():
    head = acu()
    state = head.start()
    with pytest.raises(ValueError, match="integer labels"):
        head.learn(state, X[:3], Y[:3].astype(float))
    with pytest.raises(ValueError, match="at least one row"):
        head.learn(state, X[:0], Y[:0])
    with pytest.raises(ValueError, match="2 inputs and 3 targets"):
        head.learn(state, X[:2], Y[:3])
    with pytest.raises(ValueError, match=r"features \(2, 64\)"):
        head.learn(state, X[:2, :5], Y[:2])
    with pytest.raises(RefusedError, match="never learned"):
        head.forget(state, X[:2], Y[:2])


def test_an_inverse_does_not_learn_what_it_could_never_forget():
    heavy, loud = acu("inverse"), acu("inverse", outputs=2)
    state = learnt(heavy, np.arange(40))
    with pytest.raises(RefusedError, match="too large to be forgotten again"):
        heavy.learn(state, X[40:42], Y[40:42], np.array([1e6, 1.0]))
    state = loud.learn(loud.start(), X[:40], np.eye(2)[Y[:40] % 2])
    with pytest.raises(RefusedError, match="too large to be forgotten again"):
        loud.learn(state, X[40:42], np.full((2, 2), 1e14))
    much = np.full((2, 2), 1e11)
    after = loud.forget(loud.learn(state, X[40:42], much), X[40:42], much)
    np.testing.assert_allclose(after.ridge.weight, state.ridge.weight, atol=1e-9)
