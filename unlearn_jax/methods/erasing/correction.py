"""DoCo: a critic takes the concept for its anchor, and no step undoes what stays."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from unlearn_jax import tree
from unlearn_jax.diffusion.draws import diffusion_objective, draw, noised
from unlearn_jax.diffusion.schedule import shares
from unlearn_jax.loop import repeat
from unlearn_jax.methods.erasing.images import remembered
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import Generator, Prompts, repeated
from unlearn_jax.methods.erasing.tune import held, picked
from unlearn_jax.options import check_whole, checked
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables

SURGERIES = ("projected", "published", "none")


@checked(zero=("warm_up",))
def doco(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "x",
    surgery: str = "projected",
    prior_weight: float = 1.0,
    warm_up: int = 150,
    steps: int = 300,
    learning_rate: float = 3e-4,
    critic_rate: float = 1e-3,
    batch_size: int = 64,
    ways: int = 256,
) -> Variables:
    """The clean image told under c should look to a critic like one told under c_a.

    Images of the anchor are noised; the tuned model tells a clean image under c, the
    original under c_a. A critic learns which is which, and the model to deceive it; its
    gradient loses what would raise the loss of the anchor's images.

    Args:
        key: Draws images, times, noise and the critic.
        generator: Draws the anchor's images.
        variables: Of the original.
        prompts: Retained ones are not read.
        part: What moves.
        surgery: "projected", "published" or "none", see :func:`operated`.
        prior_weight: Of the gradient of the anchor images' diffusion loss, which is
            added. Under "published" it only operates and is never added.
        warm_up: First steps, of the critic alone.
        steps: Of both, after them.
        learning_rate: Of the model's Adam, with β₁ = 0.5.
        critic_rate: Of the critic's.
        batch_size: Images a step.
        ways: Images of the anchor.

    Raises:
        ValueError: an unknown part or surgery.

    Cost: ``ways`` images, then three gradients an image and step.
    Source: Wu et al., Unlearning Concepts in Diffusion Model via Concept Domain
        Correction and Concept Preserving Gradient, 2025, arXiv 2405.15304. Differs: the
        critic is a perceptron of two hidden layers, not one of patches; the clean
        images that it sees are kept within ± 3.
    """
    if surgery not in SURGERIES:
        raise ValueError(f"surgery is {surgery!r}; choose from {', '.join(SURGERIES)}")
    check_whole("steps", steps)
    denoiser, schedule = generator.denoiser, generator.schedule
    moves = part_of(denoiser, variables.params, part)
    objective = diffusion_objective(denoiser)
    first, second, third = jax.random.split(key, 3)
    memory = remembered(first, generator, variables, prompts.anchor, ways)
    forgets = repeated(prompts.forget, ways)
    captions = {"anchor": memory.targets, "forget": forgets}
    pool = memory._replace(targets=captions)
    critic = critic_of(second, memory.inputs[0].size)
    rules = optax.adam(learning_rate, b1=0.5), optax.adam(critic_rate, b1=0.5)

    def told(params: Any, seen: Any) -> Array:
        kept, lost = shares(schedule, seen["time"])
        noise = objective.predict(params, seen).reshape(seen["image"].shape)
        return jnp.clip((seen["image"] - lost * noise) / kept, -3, 3)

    def step(i: Any, state: Any, given: Any) -> Any:
        key, original, pool = given
        params, critic, memories = state
        first, second = jax.random.split(jax.random.fold_in(key, i))
        own = picked(first, pool, batch_size)
        draws = draw(second, schedule, own.inputs, drop=0.0)
        anchor, forget = (
            noised(schedule, Batch(own.inputs, own.targets[name], own.weights), draws)
            for name in ("anchor", "forget")
        )
        true = told(original.params, anchor.inputs)

        def deceived(params: Any) -> Any:
            false = told(params, forget.inputs)
            return jnp.mean(_surprise(critic, false, 0.0)), false

        ours, false = jax.grad(deceived, has_aux=True)(params)
        prior = jax.grad(objective.risk)(params, anchor)
        ours, prior = held(ours, moves), held(prior, moves)
        slope = operated(ours, prior, surgery)
        if surgery != "published":
            slope = tree.axpy(prior_weight, prior, slope)

        def missed(critic: Any) -> Any:
            parts = _surprise(critic, true, 0.0) + _surprise(critic, false, 1.0)
            return jnp.mean(parts)

        gradients = slope, jax.grad(missed)(critic)
        moved, kept = [], []
        for rule, gradient, at, memory in zip(
            rules, gradients, (params, critic), memories, strict=True
        ):
            update, memory = rule.update(gradient, memory, at)
            moved.append(optax.apply_updates(at, update))
            kept.append(memory)
        warm = i < warm_up
        params = tree.where(warm, params, moved[0])
        kept[0] = jax.tree.map(
            lambda new, old: jnp.where(warm, old, new), kept[0], memories[0]
        )
        return params, moved[1], tuple(kept)

    params = variables.params
    state = params, critic, (rules[0].init(params), rules[1].init(critic))
    given = third, variables, pool
    moved = repeat(warm_up + steps, step, state, given)[0]
    return variables._replace(params=moved)


def operated(ours: Params, prior: Params, surgery: str = "projected") -> Params:
    """A gradient without what opposes another one.

    Args:
        ours: g.
        prior: h.
        surgery: "projected": where ⟨g, h⟩ < 0, g − ⟨g, h⟩ / ‖h‖² h, over all parameters
            together. "published": for each tensor alone g − cos(g, h) h / ‖h‖, which
            lacks the factor ‖g‖: a gradient shorter than 1 is turned further than onto
            the border, and goes along h from then on. "none": g.

    Source: arXiv 2405.15304, its equation and its released code.
    """
    tiny = 1e-30
    if surgery == "none":
        return ours
    if surgery == "projected":
        inner, size = tree.dot(ours, prior), tree.dot(prior, prior)
        return tree.axpy(-jnp.minimum(inner, 0) / (size + tiny), prior, ours)

    def one(g: Array, h: Array) -> Array:
        sizes = jnp.linalg.norm(g), jnp.linalg.norm(h)
        cosine = jnp.sum(g * h) / (sizes[0] * sizes[1] + tiny)
        return g - jnp.minimum(cosine, 0) * h / (sizes[1] + tiny)

    return jax.tree.map(one, ours, prior)


def critic_of(key: Any, pixels: int, width: int = 64) -> Params:
    """A perceptron from an image to one number."""
    sizes = (pixels, width, width, 1)
    keys = jax.random.split(key, 3)
    return [
        {
            "kernel": jax.random.normal(k, (a, b)) * (2 / a) ** 0.5,
            "bias": jnp.zeros(b),
        }
        for k, a, b in zip(keys, sizes, sizes[1:], strict=False)
    ]


def _surprise(critic: Params, images: Array, label: float) -> Array:
    """Binary cross-entropy of each image's number."""
    values = images.reshape(len(images), -1)
    for number, layer in enumerate(critic):
        values = values @ layer["kernel"] + layer["bias"][None]
        values = jax.nn.leaky_relu(values, 0.2) if number < 2 else values
    return optax.sigmoid_binary_cross_entropy(values[:, 0], label)
