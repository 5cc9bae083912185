"""One step along the influence of the forget set on the parameters."""

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import as_trained
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, solving
from unlearn_jax.methods.removal import removal_slope, stiffness_of
from unlearn_jax.solvers.inverse import Settings, check_choice, curvature_of, solve
from unlearn_jax.solvers.solution import Report, report, usable
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Params, PRNGKey, Variables


@entrance(signed=("scale",))
def influence_removal(
    learner: Learner,
    *,
    curvature: str = "gauss_newton",
    inverse: str = "cg",
    damping: float | None = None,
    scale: float = 1.0,
    tol: float = 1e-3,
    max_steps: int = 100,
    rank: int = 20,
    batch_size: int | None = None,
) -> Method:
    """θ + scale · (H + damping I)⁻¹ W_f/W_r (∇R_forget − ∇R_all), H of the retain set.

    The change of the minimiser when the weight of the forget set, W_f of W_f + W_r, is
    taken away, held by the spring that early stopping amounts to; derived in
    :mod:`unlearn_jax.methods.removal`. ∇R_all, the mean gradient, is taken at prepare:
    of the slope a request reads the forget set alone.

    Args:
        learner: Model, loss, l2 and recipe that the original was trained with.
        curvature: "gauss_newton", "hessian" or "empirical_fisher" of the retain set.
        inverse: "cg", "minres", "neumann", "low_rank", "diagonal" (for Hessian and
            Gauss-Newton estimated by max_steps random signs), "ekfac" (of the
            Gauss-Newton matrix also for "hessian"; labels are drawn for sequences and
            where a model gives more than 256 numbers for an example), or "dense" for
            small nets. "cg" and "neumann" want a positive definite matrix.
        damping: Stiffness of the spring, added to the curvature, which holds l2 and
            weight decay. None takes 1/T, T the sum of the rates of training.
        scale: Length of the step (no unit); 1 is the prediction.
        tol: Relative residual at which the solver stops (no unit).
        max_steps: Most products of the solver.
        rank: Eigenvectors of "low_rank".
        batch_size: Examples linearised at once; None takes all of them where that
            fits a gigabyte, else 256.

    Batch statistics stay.

    Returns:
        Method; its state is the mean gradient of what is still in, shaped like the
        parameters. After a step it is what the quadratic model makes of it.

    Raises:
        ValueError: an unknown name, an impossible setting, or a recipe of "adam"
            without a damping.

    Cost: prepare, one gradient per training example; forget, one per forget example,
        and some two per retain example for each product.
    Source: Koh & Liang 2017, arXiv 1703.04730, eq. 1, for a group of examples. Differs:
        the mean gradient is taken off, which at their minimum it is not needed for; the
        curvature is that of what stays, since a class takes its own curvature along;
        Gauss-Newton by default, since a net's Hessian is indefinite.
    """
    learner = as_trained(learner)
    stiffness = stiffness_of(learner, damping)
    given = 1.0 if damping is None else damping
    settings = Settings(given, tol, max_steps, rank, batch_size)
    check_choice(curvature, inverse, settings)
    examples = batch_size or 256

    def objective_of(variables: Variables) -> Objective:
        return bind(learner.model, variables.stats, learner.loss, learner.l2)

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Params:
        del key
        alone = objective_of(original)._replace(l2=0.0)
        return risk_gradient(alone, original.params, train, batch_size=examples)

    def reported(
        key: PRNGKey, state: Params, variables: Variables, request: Request
    ) -> tuple[Variables, Params, Report]:
        objective, params = objective_of(variables), variables.params
        slope = removal_slope(objective, params, request, state, batch_size=examples)
        matrix = curvature_of(
            curvature, objective, params, request.retain, batch_size=batch_size
        )
        spring = stiffness(request)
        known = settings._replace(damping=spring)
        solution = solve(key, matrix, slope, inverse, known)
        step = usable(solution)
        # ∇R_retain there, to first order: ∇R_all − slope + scale · (H without l2) step,
        # and H step is the slope less what damping and l2 hold.
        left = tree.axpy(scale - 1, slope, state)
        left = tree.axpy(-scale * (spring + learner.l2), step, left)
        moved = tree.axpy(scale, step, params)
        return variables._replace(params=moved), left, report(solution)

    return solving(reported, prepare)
