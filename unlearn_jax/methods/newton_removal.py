"""Newton's step towards the minimum of the retain risk."""

from typing import Any

import jax

from unlearn_jax import tree
from unlearn_jax.attribution.inverse import Settings, check_choice, curvature_of, solve
from unlearn_jax.loop import rounds
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.solvers.solution import usable
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Params, PRNGKey, Variables


@entrance()
def newton_removal(
    learner: Learner,
    *,
    curvature: str = "gauss_newton",
    inverse: str = "cg",
    damping: float = 0.01,
    iterations: int = 1,
    noise: float = 0.0,
    tol: float = 1e-6,
    max_steps: int = 100,
    rank: int = 20,
    batch_size: int | None = None,
) -> Method:
    """θ − (H + damping I)⁻¹ ∇R_retain(θ), H the curvature of R_retain; then noise.

    One step is exact where the risk is quadratic; R holds the learner's l2.

    Args:
        learner: Model, loss and l2 that the original was trained with.
        curvature: "gauss_newton", "hessian" or "empirical_fisher" of the retain set.
        inverse: "cg", "minres", "neumann", "low_rank", "diagonal" (for Hessian and
            Gauss-Newton estimated by max_steps random signs), "ekfac" (of the
            Gauss-Newton matrix also for "hessian"), or "dense" for small nets. "cg" and
            "neumann" want a positive definite matrix.
        damping: Added to the curvature.
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
        ValueError: an unknown name, or an impossible setting.

    Cost: per iteration one gradient per retain example, and some two for each product.
    Source: Guo et al. 2020, arXiv 1911.03030, eq. 3. Differs: Gauss-Newton by default,
        damped, iterated on request, noise on the parameters instead of the training
        objective.
    """
    settings = Settings(damping, tol, max_steps, rank, batch_size)
    check_choice(curvature, inverse, settings)
    if iterations < 1 or not noise >= 0:
        raise ValueError(
            f"expected at least one iteration and noise not negative, got {iterations} "
            f"and {noise}"
        )

    def newton(index: Any, params: Params, constants: Any) -> Params:
        key, stats, retain = constants
        objective = bind(learner.model, stats, learner.loss, learner.l2)
        slope = risk_gradient(objective, params, retain, batch_size=batch_size or 256)
        matrix = curvature_of(
            curvature, objective, params, retain, batch_size=batch_size
        )
        step = usable(
            solve(jax.random.fold_in(key, index), matrix, slope, inverse, settings)
        )
        return tree.subtract(params, step)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        step_key, noise_key = jax.random.split(key)
        constants = (step_key, variables.stats, request.retain)
        params = rounds(iterations, newton, variables.params, constants)
        if noise:
            draw = tree.random_like(noise_key, params, jax.random.normal)
            params = tree.axpy(noise, draw, params)
        return variables._replace(params=params)

    return stateless(forget)
