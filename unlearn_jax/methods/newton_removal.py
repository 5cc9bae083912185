"""Newton's steps to where training without the forget set would have stopped."""

from typing import Any

import jax

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import as_trained
from unlearn_jax.loop import rounds
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, solving
from unlearn_jax.methods.removal import removal_slope, stiffness_of
from unlearn_jax.solvers.inverse import Settings, check_choice, curvature_of, solve
from unlearn_jax.solvers.solution import Report, both_reports, no_report, report, usable
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Params, PRNGKey, Variables


@entrance()
def newton_removal(
    learner: Learner,
    *,
    curvature: str = "gauss_newton",
    inverse: str = "cg",
    damping: float | None = None,
    iterations: int = 1,
    noise: float = 0.0,
    tol: float = 1e-3,
    max_steps: int = 100,
    rank: int = 20,
    batch_size: int | None = None,
) -> Method:
    """θ − (H + damping I)⁻¹ (∇R_retain(θ) − ∇R_all(θ̂) + damping (θ − θ̂)); then noise.

    R holds l2 and the weight decay of training, H is the curvature of R_retain, θ̂ the
    model that is given. Minus ∇R_all(θ̂) is the pull of the spring that early stopping
    amounts to, derived in :mod:`unlearn_jax.methods.removal`: the first step is
    (H + damping I)⁻¹ W_f/W (∇R_forget − ∇R_retain). One step is exact where the risk is
    quadratic and, without damping, θ̂ its minimum.

    Args:
        learner: Model, loss, l2 and recipe that the original was trained with.
        curvature: "gauss_newton", "hessian" or "empirical_fisher" of the retain set.
        inverse: "cg", "minres", "neumann", "low_rank", "diagonal" (for Hessian and
            Gauss-Newton estimated by max_steps random signs), "ekfac" (of the
            Gauss-Newton matrix also for "hessian"; labels are drawn for sequences and
            where a model gives more than 256 numbers for an example), or "dense" for
            small nets. "cg" and "neumann" want a positive definite matrix.
        damping: Stiffness of the spring, added to the curvature. None takes 1/T, T the
            sum of the rates of training.
        iterations: Steps, each with fresh gradient and curvature.
        noise: Standard deviation of Gaussian noise added to every parameter at the end
            [parameter]. By itself it certifies nothing: see ``certified_removal``.
        tol: Relative residual at which the solver stops (no unit).
        max_steps: Most products of the solver.
        rank: Eigenvectors of "low_rank".
        batch_size: Examples linearised at once; None takes all of them where that
            fits a gigabyte, else 256.

    Batch statistics stay.

    Raises:
        ValueError: an unknown name, an impossible setting, or a recipe of "adam"
            without a damping.

    Cost: per iteration one gradient per example, and some two per retain example for
        each product.
    Source: Guo et al. 2020, arXiv 1911.03030, eq. 3. Differs: Gauss-Newton by default;
        the slope that training left is no reason to move, and the length of training
        damps; iterated on request, noise on the parameters instead of the training
        objective.
    """
    learner = as_trained(learner)
    stiffness = stiffness_of(learner, damping)
    given = 1.0 if damping is None else damping
    settings = Settings(given, tol, max_steps, rank, batch_size)
    check_choice(curvature, inverse, settings)
    if iterations < 1 or not noise >= 0:
        raise ValueError(
            f"expected at least one iteration and noise not negative, got {iterations} "
            f"and {noise}"
        )
    examples = batch_size or 256

    def newton(
        index: Any, place: tuple[Params, Report], constants: Any
    ) -> tuple[Params, Report]:
        params, told = place
        key, start, spring, request, pull = constants
        objective = bind(learner.model, start.stats, learner.loss, learner.l2)
        slope = risk_gradient(objective, params, request.retain, batch_size=examples)
        away = tree.subtract(params, start.params)
        slope = tree.axpy(spring, away, tree.subtract(slope, pull))
        matrix = curvature_of(
            curvature, objective, params, request.retain, batch_size=batch_size
        )
        known = settings._replace(damping=spring)
        draw = jax.random.fold_in(key, index)
        solution = solve(draw, matrix, slope, inverse, known)
        told = both_reports(told, report(solution))
        return tree.subtract(params, usable(solution)), told

    def reported(
        key: PRNGKey, state: tuple[()], variables: Variables, request: Request
    ) -> tuple[Variables, tuple[()], Report]:
        step_key, noise_key = jax.random.split(key)
        objective = bind(learner.model, variables.stats, learner.loss, learner.l2)
        kept = risk_gradient(
            objective, variables.params, request.retain, batch_size=examples
        )
        removed = removal_slope(
            objective, variables.params, request, batch_size=examples
        )
        pull = tree.add(kept, removed)
        constants = (step_key, variables, stiffness(request), request, pull)
        start = variables.params, no_report()
        params, told = rounds(iterations, newton, start, constants)
        if noise:
            draw = tree.random_like(noise_key, params, jax.random.normal)
            params = tree.axpy(noise, draw, params)
        return variables._replace(params=params), state, told

    return solving(reported)
