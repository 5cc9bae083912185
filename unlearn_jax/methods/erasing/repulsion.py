"""Adapt-then-Unlearn: learn what is undesired, then stay away from where that led."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.generators.duel import Rates, duel
from unlearn_jax.generators.images import check_images
from unlearn_jax.methods.erasing.curvature import as_drawn
from unlearn_jax.models.adversarial import Adversarial
from unlearn_jax.options import check_number, check_whole, checked
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch, Params, PRNGKey, Scalar, Variables

METRICS = ("euclidean", "fisher")
ADAPT, UNLEARN = Rates(steps=200), Rates(steps=1000)
FORMS = ("exponential", "inverse", "negative")


@checked()
def adapt_then_unlearn(
    key: PRNGKey,
    gan: Adversarial,
    variables: Variables,
    undesired: Batch,
    desired: Batch,
    *,
    metric: str = "euclidean",
    form: str = "exponential",
    strength: Any = 1.0,
    tether: float = 1.0,
    adapted: int = 3,
    points: int = 256,
    adapt: Rates = ADAPT,
    unlearn: Rates = UNLEARN,
) -> Variables:
    """Adapt to undesired images, then train on desired ones away from there.

    First the generator goes on adversarially with undesired images as the real ones,
    held by λ/2 ‖θ − θ*‖²_F, from ``adapted`` seeds: θ_N. Then it starts from θ* again,
    with desired images as the real ones and a repulsion from θ_N that is a function of
    d = the mean over θ_N of ‖θ − θ_N‖² in units of its value at θ*.

    Args:
        key: Draws everything.
        gan: Both networks, both of which move.
        variables: Of the original.
        undesired: Images as inputs, such as drawn ones that a user marked.
        desired: Likewise.
        metric: Of d: "euclidean", the mean over all parameters as published; "fisher",
            by the diagonal F of what the generator draws.
        form: γ exp(−d), γ / d or −γ d.
        strength: γ.
        tether: λ, in units in which F has a mean of 1.
        adapted: Adapted generators.
        points: Drawn images that F is found from.
        adapt: How long and how fast each adapts.
        unlearn: How long and how fast the second stage goes.

    Raises:
        ValueError: an unknown metric or form, no adapted generator, and as ``duel``.

    Cost: ``adapted`` short trainings and one more.
    Source: Tiwary et al., Adapt then Unlearn, 2023, arXiv 2309.14054. Differs: F is the
        Fisher of the images that are drawn, under unit noise, where the released code
        squares gradients of the critic's logit; d is in units of its start, so that γ
        means the same for both metrics (released: per-tensor means, times a slip of
        n/2); the exponential has no factor of 100.
    """
    for name, data in (("undesired images", undesired), ("desired images", desired)):
        check_images(gan.image_shape, data, name=name)
    check_whole("adapted", adapted)
    check_number("strength", strength, least=0.0)
    check_number("tether", tether, least=0.0)
    for name, value, known in (("metric", metric, METRICS), ("form", form, FORMS)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; choose from {', '.join(known)}")
    first, second, third = jax.random.split(key, 3)
    home = variables.params["generator"]
    matrix = image_fisher(first, gan, home, points)
    size = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(matrix)) / tree.size(matrix)
    matrix = jax.tree.map(lambda leaf: leaf / size, matrix)

    def held(own: Any, given: Any) -> Any:
        home, matrix = given
        return 0.5 * tether * apart(own, home, matrix)

    def negative(key: Any) -> Params:
        given = gan, variables, undesired, adapt
        moved = duel(key, *given, tether=held, given=(home, matrix))
        return moved.params["generator"]

    bad = jax.lax.map(negative, jax.random.split(second, adapted))
    weights = matrix if metric == "fisher" else jax.tree.map(jnp.ones_like, matrix)

    def away(own: Any, given: Any) -> Any:
        home, bad, weights = given
        start, now = (
            jnp.mean(jax.vmap(lambda each, at=at: apart(at, each, weights))(bad))
            for at in (home, own)
        )
        return strength * repelled(now / start, form)

    given = gan, variables, desired, unlearn
    return duel(third, *given, tether=away, given=(home, bad, weights))


def repelled(distance: Any, form: str) -> Any:
    """exp(−d), 1 / d or −d."""
    if form == "exponential":
        return jnp.exp(-distance)
    return 1 / distance if form == "inverse" else -distance


def apart(params: Params, other: Params, weights: Params) -> Scalar:
    """Σ w (a − b)²."""
    gap = tree.subtract(params, other)
    return tree.dot(gap, jax.tree.map(jnp.multiply, weights, gap))


def image_fisher(key: PRNGKey, gan: Adversarial, params: Params, count: int) -> Params:
    """Diagonal Fisher of a generator: of its images as means of unit noise.

    Args:
        key: Draws codes and noise.
        gan: Whose generator is asked.
        params: Of the generator alone.
        count: Images.
    """
    first, second = jax.random.split(key)
    kind = jax.tree.leaves(params)[0].dtype
    codes = jax.random.normal(first, (count, gan.codes), kind)

    def predict(params: Params, codes: Any) -> Any:
        return gan.images(params, codes).reshape(len(codes), -1)

    told = Batch(codes, predict(params, codes), jnp.ones(count, kind))
    objective = Objective(predict, squared_error)
    return empirical_fisher_diagonal(objective, params, as_drawn(second, told))
