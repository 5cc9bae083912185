"""Training a generator against a critic: two losses, two Adams, one loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from unlearn_jax.generators.images import check_images
from unlearn_jax.loop import repeat
from unlearn_jax.models.adversarial import Adversarial
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Scalar, Variables

Tether = Callable[[Any, Any], Any]
"""``(parameters of the generator, given) -> scalar`` that is added to its loss."""


class Rates(NamedTuple):
    """Description: how long and how fast.

    Attributes:
        steps: Of both networks in turn.
        batch_size: Images of either kind in a step.
        learning_rate: Of both Adams, whose first moment has no memory.
        penalty: γ of ½ γ ‖∂ critic / ∂ image‖² at real images (R1).
    """

    steps: int = 5000
    batch_size: int = 64
    learning_rate: float = 1e-3
    penalty: float = 1.0


def fit_adversarial(
    key: PRNGKey, gan: Adversarial, data: Batch, rates: Rates
) -> tuple[Variables, Any]:
    """Train both from scratch on images whose weight is positive.

    Args:
        key: Draws parameters, images and noise.
        gan: What is trained.
        data: Images as inputs; targets are not read.
        rates: How long and how fast.

    Returns:
        (variables, loss): the critic's, of one last batch [nats].
    """
    first, second, third = jax.random.split(key, 3)
    variables = duel(second, gan, gan.init(first), data, rates)
    batch = _drawn(third, gan, data, rates.batch_size)
    loss = critic_loss(gan, variables.params, *batch, rates.penalty)
    return variables, loss


def duel(
    key: PRNGKey,
    gan: Adversarial,
    variables: Variables,
    data: Batch,
    rates: Rates,
    *,
    tether: Tether | None = None,
    given: Any = None,
) -> Variables:
    """Go on from both networks: a step of the critic, then one of the generator.

    Args:
        key: Draws images and noise.
        gan: Both networks.
        variables: Where they start.
        data: What counts as real.
        rates: How long and how fast.
        tether: What is added to the generator's loss.
        given: Arrays that it reads.

    Raises:
        ValueError: no steps or no batch, a rate that is not positive, a negative
            penalty, images of another shape; NaN or no example (these not while being
            traced).

    Cost: three gradients an image and step, one of them of a gradient.
    Source: non-saturating losses of Goodfellow et al. 2014, R1 of Mescheder et al.
        2018, arXiv 1801.04406.
    """
    check_images(gan.image_shape, data)
    check_whole("steps", rates.steps)
    check_whole("batch_size", rates.batch_size)
    check_number("learning_rate", rates.learning_rate, positive=True)
    check_number("penalty", rates.penalty, least=0.0)
    rule = optax.adam(rates.learning_rate, b1=0.0, b2=0.99)

    def step(i: Any, state: Any, constants: Any) -> Any:
        key, data, given = constants
        params, memory = state
        first, second = jax.random.split(jax.random.fold_in(key, i))
        real, codes = _drawn(first, gan, data, rates.batch_size)

        def critic(own: Any) -> Any:
            whole = {**params, "critic": own}
            return critic_loss(gan, whole, real, codes, rates.penalty)

        judge, judge_memory = _moved(rule, critic, params["critic"], memory["critic"])
        codes = jax.random.normal(second, codes.shape, codes.dtype)

        def generator(own: Any) -> Any:
            loss = generator_loss(gan, {"generator": own, "critic": judge}, codes)
            return loss if tether is None else loss + tether(own, given)

        draws, draws_memory = _moved(
            rule, generator, params["generator"], memory["generator"]
        )
        moved = {"generator": draws, "critic": judge}
        return moved, {"generator": draws_memory, "critic": judge_memory}

    params = variables.params
    memory = {name: rule.init(part) for name, part in params.items()}
    data = jax.tree.map(jnp.asarray, data)
    constants = key, data, given
    moved = repeat(rates.steps, step, (params, memory), constants)[0]
    return variables._replace(params=moved)


def critic_loss(
    gan: Adversarial,
    params: Params,
    real: Float[Array, "n h w c"],
    codes: Float[Array, "m z"],
    penalty: float,
) -> Scalar:
    """−log real at real images, −log (1 − real) at drawn ones, and R1 [nats]."""
    drawn = gan.images(params["generator"], codes)
    drawn = jax.lax.stop_gradient(drawn)
    own = params["critic"]
    apart = jnp.mean(jax.nn.softplus(-gan.real(own, real)))
    apart = apart + jnp.mean(jax.nn.softplus(gan.real(own, drawn)))
    slopes = jax.grad(lambda images: jnp.sum(gan.real(own, images)))(real)
    return apart + 0.5 * penalty * jnp.mean(jnp.sum(slopes**2, axis=(1, 2, 3)))


def generator_loss(
    gan: Adversarial, params: Params, codes: Float[Array, "m z"]
) -> Scalar:
    """−log real at drawn images [nats]."""
    drawn = gan.images(params["generator"], codes)
    return jnp.mean(jax.nn.softplus(-gan.real(params["critic"], drawn)))


def _drawn(key: Any, gan: Adversarial, data: Batch, count: int) -> tuple[Array, Array]:
    """Images of positive weight, and noise."""
    first, second = jax.random.split(key)
    weights = jnp.asarray(data.weights)
    rows = jax.random.choice(first, len(weights), (count,), p=weights / weights.sum())
    images = jnp.asarray(data.inputs)[rows]
    return images, jax.random.normal(second, (count, gan.codes), images.dtype)


def _moved(rule: Any, loss: Any, params: Params, memory: Any) -> tuple[Any, Any]:
    update, memory = rule.update(jax.grad(loss)(params), memory, params)
    return optax.apply_updates(params, update), memory
