"""One step along the influence of the forget set on the parameters."""

import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.attribution.inverse import Settings, check_choice, curvature_of, solve
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.solvers.solution import usable
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import PRNGKey, Variables


@entrance(signed=("scale",))
def influence_removal(
    learner: Learner,
    *,
    curvature: str = "gauss_newton",
    inverse: str = "cg",
    damping: float = 0.01,
    scale: float = 1.0,
    correct_gradient: bool = False,
    tol: float = 1e-6,
    max_steps: int = 100,
    rank: int = 20,
    batch_size: int | None = None,
) -> Method:
    """θ + scale · (H + damping I)⁻¹ W_f/W ∇R_forget(θ), H the curvature on all data.

    The first-order change of the minimiser of the risk when the weight of the forget
    set, W_f of W in all, is taken away; R holds the learner's l2.

    Args:
        learner: Model, loss and l2 that the original was trained with.
        curvature: "gauss_newton", "hessian" or "empirical_fisher", over the retain and
            the forget set together.
        inverse: "cg", "minres", "neumann", "low_rank", "diagonal" (for Hessian and
            Gauss-Newton estimated by max_steps random signs), "ekfac" (of the
            Gauss-Newton matrix also for "hessian"), or "dense" for small nets. "cg" and
            "neumann" want a positive definite matrix.
        damping: Added to the curvature.
        scale: Length of the step (no unit).
        correct_gradient: The formula takes the original for a minimum. A net stopped
            early is none; True goes along −W_r/W ∇R_retain instead, which is the same
            at a minimum and includes what training left undone.
        tol: Relative residual at which the solver stops (no unit).
        max_steps: Most products of the solver.
        rank: Eigenvectors of "low_rank".
        batch_size: Examples linearised at once; None takes all of them where that
            fits a gigabyte, else 256.

    Batch statistics stay.

    Raises:
        ValueError: an unknown name, or an impossible setting.

    Cost: one gradient per forget (or retain) example; each product some two gradients
        per training example.
    Source: Koh & Liang 2017, arXiv 1703.04730, eq. 1, for a group of examples.
        Differs: Gauss-Newton by default, since a net's Hessian is indefinite.
    """
    settings = Settings(damping, tol, max_steps, rank, batch_size)
    check_choice(curvature, inverse, settings)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        objective = bind(learner.model, variables.stats, learner.loss, learner.l2)
        params = variables.params
        out, kept = (jnp.sum(part.weights) for part in request)
        data, share = request.forget, out
        if correct_gradient:
            data, share = request.retain, -kept
        whole = out + kept
        slope = risk_gradient(objective, params, data, batch_size=batch_size or 256)
        slope = tree.scale(share / jnp.where(whole > 0, whole, 1), slope)
        matrix = curvature_of(
            curvature,
            objective,
            params,
            request.retain,
            request.forget,
            batch_size=batch_size,
        )
        step = usable(solve(key, matrix, slope, inverse, settings))
        return variables._replace(params=tree.axpy(scale, step, params))

    return stateless(forget)
