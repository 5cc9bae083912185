"""MUDMAN: unlearn an adversary that relearns, and only where nothing is disrupted."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.data.accumulate import present
from unlearn_jax.data.batch import sample
from unlearn_jax.loop import rounds
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.asked import Asked, asked
from unlearn_jax.train.fit import weighted_mean
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables


def _negative_entropy(said: Asked) -> Array:
    logp = jax.nn.log_softmax(said.outputs, axis=-1)
    return said.mean(jnp.sum(jnp.exp(logp) * logp, axis=-1))


def _margin(said: Asked) -> Array:
    picked = jnp.take_along_axis(said.outputs, said.tokens[..., None], axis=-1)[..., 0]
    return said.mean(jnp.maximum(picked - said.outputs.mean(-1), 0))


TERMS: Mapping[str, Callable[[Asked], Array]] = {
    "entropy": _negative_entropy,
    "ascent": lambda said: -said.nll / said.length,
    "margin": _margin,
}
"""What is descended on the forget set, at the adversary: -entropy of what is said, the
likelihood, or how far the true logit is above the mean one."""
SCALES = ("unit", "root")


@entrance()
def mudman(
    learner: Learner,
    *,
    term: str = "entropy",
    scale: str = "unit",
    steps: int = 100,
    fork_every: int = 32,
    momentum: float = 0.9,
    discount: float = 1.0,
    learning_rate: float = 0.1,
    adversary_rate: float = 1e-3,
    retain_rate: float = 1e-3,
    batch_size: int = 16,
) -> Method:
    """Descend on the retain set, and on a term whose gradient an adversary gives.

    In every step, a the running mean of retain gradients: θ ← θ - retain_rate a; the
    adversary φ, put to θ every so many steps, goes down the forget loss; u is the
    gradient of the term at φ before that. Entries whose sign is not that of a are set
    to zero (disruption masking), and θ ← θ - rate u / ‖u‖, the norm before masking.

    Args:
        learner: Model and loss, which the adversary and the retain set descend; no l2.
        term: "entropy", "ascent" or "margin", see :data:`TERMS`.
        scale: "unit": as above. "root": the step is √(number of parameters) longer, as
            in the paper's experiments, so that the rate is that of a parameter.
        steps: How often all this is done.
        fork_every: Steps between forks of the adversary.
        momentum: Of a.
        discount: After its step φ ← discount · φ + (1 - discount) · θ; 1 leaves φ.
        learning_rate: Of the unlearning step.
        adversary_rate: Of the adversary.
        retain_rate: Of the retain set.
        batch_size: Examples of either set per step, drawn anew.

    Batch statistics stay.

    Raises:
        ValueError: an unknown name, or a share outside [0, 1].

    Cost: three gradients of a batch in a step; memory three times the parameters.
    Source: Sondej et al. 2025, arXiv 2506.12484, defaults of its example. Differs:
        plain outputs (no dropout), and all parameters move unless ``restrict`` says
        which; there only one matrix of each block does.
    """
    for name, value, known in (("term", term, TERMS), ("scale", scale, SCALES)):
        if value not in known:
            raise ValueError(
                f"{name} {value!r} is unknown; choose from {', '.join(known)}"
            )
    for name, share in (("momentum", momentum), ("discount", discount)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be from 0 to 1, got {share}")
    model, loss = learner.model, TERMS[term]

    def mean(values: Callable[[Any, Any], Array]) -> Callable[..., Any]:
        def of(params: Params, stats: Any, data: Batch) -> Array:
            outputs = model.apply(Variables(params, stats), data.inputs)
            return weighted_mean(values(outputs, data.targets), data.weights)

        return jax.grad(of)

    trained = mean(learner.loss)
    pressed = mean(lambda outputs, targets: loss(asked(outputs, targets)))

    def step(index: Any, state: Any, constants: Any) -> Any:
        params, adversary, running = state
        key, stats, request = constants
        keys = jax.random.split(jax.random.fold_in(key, index))
        forget, retain = (
            present(sample(k, part, min(batch_size, part.weights.shape[0])))
            for k, part in zip(keys, request, strict=True)
        )
        adversary = tree.where(index % fork_every == 0, params, adversary)
        down = trained(params, stats, retain)
        running = tree.axpy(1 - momentum, down, tree.scale(momentum, running))
        params = tree.axpy(-retain_rate, running, params)
        pushed = pressed(adversary, stats, forget)
        learnt = tree.axpy(
            -adversary_rate, trained(adversary, stats, forget), adversary
        )
        back = tree.scale(1 - discount, params)
        adversary = tree.axpy(discount, learnt, back)
        size = tree.norm(pushed)
        length = learning_rate * (tree.size(params) ** 0.5 if scale == "root" else 1.0)
        same = jax.tree.map(
            lambda u, a: jnp.where(jnp.sign(u) == jnp.sign(a), u, 0), pushed, running
        )
        rate = -length / jnp.where(size > 0, size, 1)
        return tree.axpy(rate, same, params), adversary, running

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        start = variables.params
        state = start, start, tree.zeros_like(start)
        params, *_ = rounds(steps, step, state, (key, variables.stats, request))
        idle = jnp.sum(request.forget.weights) == 0
        return variables._replace(params=tree.where(idle, start, params))

    return stateless(forget)
