"""Steps clipped by a diagonal curvature: Sophia as designed, as released, and without.

Without its curvature Sophia is momentum of signs, which is therefore the control of
any claim for it. The *win rate* is the share of coordinates whose step is not clipped:
where it is near zero, curvature decides nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from unlearn_jax import tree
from unlearn_jax.methods.forget_terms import Term, ascent
from unlearn_jax.methods.forget_terms import npo as npo_term
from unlearn_jax.methods.forgetting import Stepper, forgetting_run
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.methods.paired import Part
from unlearn_jax.train.asked import asked
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Params, PRNGKey, Variables

VARIANTS = ("designed", "released", "sign")
RELEASED_SCALE = 5120.0
"""What the released code multiplies its curvature by, since nobody says otherwise."""
_TINY = 1e-15


class Clipped(NamedTuple):
    """Value: state of the optimiser.

    Attributes:
        momentum: Mean of gradients.
        curvature: Mean of squared gradients ("released"), else empty.
        open: Sum over steps of the share of coordinates that were not clipped.
        steps: Steps taken.
    """

    momentum: Params
    curvature: Any
    open: Array
    steps: Array

    @property
    def win_rate(self) -> Any:
        """Mean over the run of the share that was not clipped, from 0 to 1."""
        return self.open / jnp.maximum(self.steps, 1)


def sophia_run(
    learner: Learner,
    *,
    variant: str = "designed",
    objective: str = "npo",
    rho: float = 0.04,
    momentum: float = 0.9,
    decay: float = 0.95,
    every: int = 10,
    beta: float = 0.1,
    reduction: str = "sum",
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Callable[[PRNGKey, Variables, Request], tuple[Variables, Clipped]]:
    """:func:`sophia` as a function that also tells its last state, with the win rate.

    Args:
        learner: As there.
        variant: As there.
        objective: As there.
        rho: As there.
        momentum: As there.
        decay: As there.
        every: As there.
        beta: As there.
        reduction: As there.
        retain: As there.
        retain_weight: As there.
        epochs: As there.
        learning_rate: As there.
        batch_size: As there.

    Returns:
        ``(key, variables, request) -> (variables, Clipped)``.

    Cost, source and differences: as there.
    """
    terms: dict[str, Callable[[], Term]] = {
        "npo": lambda: npo_term(beta, reduction),
        "graddiff": ascent,
    }
    for name, value, known in (
        ("variant", variant, VARIANTS),
        ("objective", objective, terms),
    ):
        if value not in known:
            raise ValueError(
                f"{name} {value!r} is unknown; choose from {', '.join(known)}"
            )

    def begin(params: Params) -> Any:
        if variant != "designed":
            return ()
        return {"bend": tree.zeros_like(params), "step": jnp.zeros((), jnp.int32)}

    def watch(key: Any, params: Any, stats: Any, own: Any, kept: Part) -> Any:
        if variant != "designed":
            return own

        def fresh(bend: Params) -> Params:
            square = sampled_square(key, learner, params, stats, kept)
            return tree.axpy(1 - decay, square, tree.scale(decay, bend))

        due = own["step"] % every == 0
        bend = jax.lax.cond(due, fresh, lambda bend: bend, own["bend"])
        return {"bend": bend, "step": own["step"] + 1}

    def rule(recipe: Any, total: Any, own: Any) -> optax.GradientTransformation:
        del total
        bend = own["bend"] if variant == "designed" else None
        return _transformation(
            variant, recipe.learning_rate, bend, rho, momentum, decay
        )

    return forgetting_run(
        learner,
        terms[objective](),
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        stepper=Stepper(begin, watch, rule),
    )


@entrance()
def sophia(
    learner: Learner,
    *,
    variant: str = "designed",
    objective: str = "npo",
    rho: float = 0.04,
    momentum: float = 0.9,
    decay: float = 0.95,
    every: int = 10,
    beta: float = 0.1,
    reduction: str = "sum",
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """θ ← θ - rate · clip(m / (ρ h), 1), m the mean gradient, h the mean curvature.

    The gradient is that of NPO, or of ascent, with a hold on the retain set.

    Args:
        learner: Model and loss; its optimiser is not read.
        variant: "designed": h is the diagonal of the Gauss-Newton matrix of the mean
            loss per label of a retained batch, with labels drawn from the model, every
            so many steps. "released": as in SOUL's code, h the squares of the same
            gradients, times 5120, the momentum fed twice in a step, gradients clipped
            to norm 1. "sign": m alone, its sign; the control.
        objective: "npo" or "graddiff".
        rho: Where steps are clipped (no unit): the larger, the fewer. Its authors tune
            it until 10 to 50 % are not, see :func:`sophia_run`.
        momentum: Of m.
        decay: Of h.
        every: Steps between curvatures of "designed".
        beta: Of NPO.
        reduction: Of NPO.
        retain: "loss", "kl" or "none".
        retain_weight: Of what holds.
        epochs: Passes over the forget set.
        learning_rate: Largest step of any parameter.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.

    Cost: as ``npo``; "designed" one gradient of a retained batch more in ``every``.
    Source: Liu et al. 2023, Sophia, and Jia et al. 2024, arXiv 2404.18239, for
        unlearning. Differs: "designed" takes curvature of the retain set alone.
    """
    run = sophia_run(
        learner,
        variant=variant,
        objective=objective,
        rho=rho,
        momentum=momentum,
        decay=decay,
        every=every,
        beta=beta,
        reduction=reduction,
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        return run(key, variables, request)[0]

    return stateless(forget)


def sampled_square(
    key: Any, learner: Learner, params: Params, stats: Any, part: Part
) -> Params:
    """B · ĝ², ĝ the gradient of the mean log-loss of B labels drawn from the model.

    Its expectation is the diagonal of the Gauss-Newton matrix of the mean loss per
    label, since gradients of labels drawn apart do not correlate.
    """
    inputs, targets = part.examples

    def mean_loss(at: Params) -> tuple[Any, Any]:
        outputs = learner.model.apply(Variables(at, stats), inputs)
        said = asked(outputs, targets)
        fixed = jax.lax.stop_gradient(said.outputs)
        drawn = said._replace(tokens=jax.random.categorical(key, fixed))
        there = part.weights > 0
        count = jnp.maximum(jnp.sum(jnp.where(there[:, None], said.kept, False)), 1)
        return jnp.sum(jnp.where(there, drawn.nll, 0)) / count, count

    slope, count = jax.grad(mean_loss, has_aux=True)(params)
    return jax.tree.map(lambda g: (count * jnp.square(g)).astype(g.dtype), slope)


def _transformation(
    variant: str, rate: float, bend: Any, rho: float, momentum: float, decay: float
) -> optax.GradientTransformation:
    released = variant == "released"
    scale = RELEASED_SCALE if released else 1.0

    def init(params: Params) -> Clipped:
        zero = jnp.zeros((), jnp.float32)
        curvature = tree.zeros_like(params) if released else ()
        return Clipped(tree.zeros_like(params), curvature, zero, zero)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Params, Clipped]:
        del params
        slope = updates
        curvature = state.curvature
        if released:
            slope = tree.scale(1 / jnp.maximum(tree.norm(slope), 1), slope)
            square = jax.tree.map(jnp.square, slope)
            curvature = tree.axpy(1 - decay, square, tree.scale(decay, curvature))
        kept = momentum**2 if released else momentum
        mean = tree.axpy(1 - kept, slope, tree.scale(kept, state.momentum))
        if variant == "sign":
            ratio, share = jax.tree.map(jnp.sign, mean), jnp.zeros(())
        else:
            ratio = jax.tree.map(
                lambda m, h: m / jnp.maximum(rho * scale * h, _TINY),
                mean,
                curvature if released else bend,
            )
            inside = [jnp.sum(jnp.abs(r) < 1) for r in jax.tree.leaves(ratio)]
            share = sum(inside[1:], inside[0]) / tree.size(ratio)
        steps = jax.tree.map(
            lambda r: (-rate * jnp.clip(r, -1, 1)).astype(r.dtype), ratio
        )
        opened = state.open + share.astype(jnp.float32)
        return steps, Clipped(mean, curvature, opened, state.steps + 1)

    return optax.GradientTransformation(init, update)
