"""JiT: one step against its expectation by other draws; what holds and what is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.methods.lipschitz import lipschitz, perturbed

SIGMA, SAMPLES, RATE = 0.7, 3000, 0.01


def slopes_by_hand(kernel, inputs, draws, seed):
    """(draws, f, k) of softmax regression: x uᵀ / ‖x − x'‖ summed over the examples,
    u the direction of (x − x') W."""
    random = np.random.default_rng(seed)
    noise = SIGMA * random.normal(size=(draws, *inputs.shape))
    moved = np.clip(inputs + noise, inputs.min(), inputs.max())
    change = inputs - moved
    outputs = change @ kernel
    unit = outputs / np.linalg.norm(outputs, axis=-1, keepdims=True)
    unit = unit / np.linalg.norm(change, axis=-1, keepdims=True)
    return np.einsum("nf,dnk->dfk", inputs, unit)


def test_a_step_is_the_mean_of_independent_draws(request_a):
    learner = tiny.learner("softmax")
    variables = learner.model.init(jax.random.key(1))
    settings = {"sigma": SIGMA, "samples": SAMPLES, "learning_rate": RATE}
    moved = tiny.unlearned(lipschitz(learner, **settings), variables, request_a)
    kernel = np.asarray(variables.params["kernel"])
    step = (kernel - np.asarray(moved.params["kernel"])) / RATE
    inputs = np.asarray(request_a.forget.inputs)[:6]
    drawn = slopes_by_hand(kernel, inputs, 6000, seed=0)
    error = drawn.std(axis=0) * np.sqrt(1 / SAMPLES + 1 / len(drawn))
    assert np.all(np.abs(step - drawn.mean(axis=0)) < 5 * error)
    assert np.abs(step / error).max() > 8  # the test sees more than its noise


def test_noise_stays_within_the_range_of_the_batch(key):
    inputs = {"a": np.linspace(-1, 2, 40).reshape(10, 4), "b": np.zeros((10, 2))}
    moved = tiny.quick_jit(lambda *given: perturbed(*given, sigma=3.0))(key, inputs)
    assert float(moved["a"].min()) == -1.0
    assert float(moved["a"].max()) == 2.0
    assert np.mean(np.asarray(moved["a"]) != inputs["a"]) > 0.2
    np.testing.assert_array_equal(moved["b"], 0)  # nowhere to go


def test_examples_that_cannot_move_count_nothing(request_a, original):
    same = request_a.forget._replace(inputs=np.ones_like(request_a.forget.inputs))
    method = lipschitz(tiny.learner("mlp"), learning_rate=1.0)
    moved = tiny.unlearned(method, original, request_a._replace(forget=same))
    np.testing.assert_array_equal(tiny.flat(moved.params), tiny.flat(original.params))


def test_the_outputs_about_the_forget_set_become_flatter(request_a, original):
    learner = tiny.learner("mlp")

    @tiny.quick_jit
    def rough(variables):
        jacobian = jax.vmap(
            jax.jacobian(lambda x: learner.model.apply(variables, x[None])[0])
        )(request_a.forget.inputs[:6])
        return jnp.mean(jnp.linalg.norm(jacobian, axis=(1, 2)))

    method = lipschitz(learner, sigma=0.3, epochs=100, learning_rate=0.05)
    moved = tiny.unlearned(method, original, request_a)
    assert rough(moved) < 0.5 * rough(original)


def test_whole_numbers_have_no_neighbourhood(request_a):
    learner = tiny.learner("softmax")

    def looked_up(variables, inputs):
        return jnp.sum(variables.params["kernel"][inputs], axis=1)

    words = learner._replace(model=learner.model._replace(apply=looked_up))
    request = request_a._replace(
        **{
            name: part._replace(inputs=np.ones(part.inputs.shape, np.int32))
            for name, part in request_a._asdict().items()
        }
    )
    method, start = lipschitz(words), learner.model.init(jax.random.key(1))
    with pytest.raises(ValueError, match="lipschitz follows gradients by the inputs"):
        method.forget(jax.random.key(0), (), start, request)
