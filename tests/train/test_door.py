"""What parameters, batches, outputs and losses may be, and how others are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.train.door import check_real, entered, seen
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch, Variables

RANDOM = np.random.default_rng(0)
PARAMS = {"w": jnp.asarray(RANDOM.standard_normal((4, 3)))}
BATCH = Batch(RANDOM.standard_normal((5, 4)), np.arange(5) % 3, np.ones(5))


def linear(params, inputs):
    return inputs @ params["w"]


def enter(predict=linear, params=PARAMS, batch=BATCH, loss=cross_entropy, **options):
    return entered("it", Objective(predict, loss), params, batch, **options)


def mean_loss(outputs, targets):
    return jnp.mean(cross_entropy(outputs, targets))


@pytest.mark.parametrize(
    ("predict", "sentence"),
    [
        (lambda p, x: (linear(p, x), x), "a tuple of 2 arrays"),
        (lambda p, x: {"logits": linear(p, x)}, "a dict of 1 arrays"),
        (lambda p, x: linear(p, x)[None], r"an array \(1, 2, 3\) for 2 examples"),
        # As long as the examples are many, by chance: told with another number.
        (
            lambda p, x: jnp.zeros((2, len(x), 3)),
            r"an array \(2, 3, 3\) for 3 examples",
        ),
        (lambda p, x: jnp.argmax(linear(p, x), 1), "int64.* can be differentiated"),
    ],
)
def test_outputs_that_are_not_one_array_examples_first(predict, sentence):
    loss = {"loss": lambda o, y: jnp.zeros(len(y))}
    with pytest.raises(ValueError, match=f"^it: predict returns {sentence}"):
        enter(predict, **loss)


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (mean_loss, r"\(\) for 2 examples, expected one value for each"),
        (lambda o, y: (cross_entropy(o, y), o), "tuple for 2 examples"),
        (lambda o, y: jnp.argmax(o, 1), "int64, expected real"),
    ],
)
def test_losses_that_are_not_one_number_for_each_example(loss, sentence):
    with pytest.raises(ValueError, match=f"^it: the loss returns {sentence}"):
        enter(loss=loss)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({**PARAMS, "step": jnp.asarray(3)}, r"int64 at \['step'\]"),
        ({**PARAMS, "mask": jnp.ones(3, bool)}, r"bool at \['mask'\]"),
        ({**PARAMS, "step": 3}, r"int64 at \['step'\]"),
        ({**PARAMS, "name": "net"}, r"str at \['name'\]"),
        (Variables(PARAMS, {}), "Variables as parameters.* variables.params"),
        ({}, "without any array"),
    ],
)
def test_parameters_without_a_derivative_are_named(params, sentence):
    with pytest.raises(ValueError, match=f"^it got .*{sentence}"):
        enter(params=params)


def test_numbers_nothing_and_empty_arrays_are_parameters():
    given = {**PARAMS, "heat": 2.0, "bias": None, "none": jnp.zeros((0, 3))}
    params, _ = enter(lambda p, x: linear(p, x) / p["heat"], given)
    assert isinstance(params["heat"], jax.Array)
    assert params["bias"] is None
    assert params["none"].shape == (0, 3)


def test_complex_parameters_are_refused_where_they_mean_nothing():
    check_real("it", PARAMS)
    with pytest.raises(ValueError, match=r"it got complex128 at \['w'\].*two param"):
        check_real("it", {"w": PARAMS["w"] + 1j})


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"inputs": (BATCH.inputs, BATCH.inputs[:3])}, r"inputs of shapes \[\(5, 4\)"),
        ({"inputs": ()}, r"inputs of shapes \[\]"),
        ({"targets": BATCH.targets[:4]}, "5 examples in the inputs and 4 in the targ"),
        ({"weights": np.ones(6)}, "5 examples in the inputs and 6 in the weights"),
        ({"weights": np.ones((5, 1))}, r"weights float64\[5, 1\], expected one real"),
    ],
)
def test_batches_without_one_common_first_axis(part, sentence):
    with pytest.raises(ValueError, match=f"^it got {sentence}"):
        enter(batch=BATCH._replace(**part))


def test_no_example_at_all():
    with pytest.raises(ValueError, match=r"^it got no example at all \(n = 0\)"):
        enter(batch=jax.tree.map(lambda leaf: leaf[:0], BATCH))


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float16, jnp.bfloat16])
def test_weights_are_widened(dtype):
    _, batch = enter(batch=BATCH._replace(weights=np.ones(5, dtype)))
    assert batch.weights.dtype == jnp.float32


def normalised(params, inputs):
    h = linear(params, inputs)
    return (h - h.mean(0)[None]) / jnp.sqrt(h.var(0) + 1e-3)[None]


def test_examples_that_depend_on_one_another():
    with pytest.raises(ValueError, match="it: the outputs of an example change by"):
        enter(normalised, alone=True)
    enter(normalised)  # where a sum over the batch is meant
    jax.jit(lambda p: enter(normalised, p, alone=True))(PARAMS)  # nothing is known


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_rounding_is_no_dependence(dtype):
    def deep(params, inputs):
        for _ in range(6):
            inputs = jnp.tanh(inputs @ params)
        return inputs

    params = jnp.asarray(RANDOM.standard_normal((64, 64)) / 4, dtype)
    inputs = jnp.asarray(RANDOM.standard_normal((5, 64)), dtype)
    enter(deep, params, BATCH._replace(inputs=inputs), alone=True)


def test_of_weight_zero_what_can_be_used_stays_and_the_rest_is_replaced():
    inputs, targets = BATCH.inputs.copy(), BATCH.targets.copy()
    weights = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
    inputs[2, 1], targets[3] = np.nan, 77
    inputs[4], targets[4] = 0, 0
    found = seen(
        Objective(linear, cross_entropy), PARAMS, Batch(inputs, targets, weights)
    )
    expected = inputs[[0, 1, 1, 1, 1]]
    np.testing.assert_array_equal(found.inputs, expected)
    np.testing.assert_array_equal(found.targets, targets[[0, 1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        (
            BATCH._replace(targets=BATCH.targets + 1),
            "1 labels out of range.* example 2",
        ),
        (BATCH._replace(targets=np.eye(3)[BATCH.targets]), "one class index"),
        (
            BATCH._replace(
                inputs=np.where(np.arange(5)[:, None] == 3, np.nan, BATCH.inputs)
            ),
            "NaN or infinite inputs in 1 rows, the first is row 3",
        ),
    ],
)
def test_values_are_told_with_their_row(batch, sentence):
    with pytest.raises(ValueError, match=f"^it: got .*{sentence}"):
        enter(batch=batch)


def test_what_is_absent_or_not_read_may_hold_anything():
    broken = BATCH._replace(
        inputs=np.where(np.arange(5)[:, None] == 3, np.nan, BATCH.inputs),
        targets=np.array([0, 1, 2, 7, 1]),
        weights=np.array([1.0, 1, 1, 0, 1]),
    )
    enter(batch=broken)
    objective = Objective(linear, cross_entropy)
    unread = BATCH._replace(targets=BATCH.targets + 9)
    entered("it", objective, PARAMS, unread, loss=False)
