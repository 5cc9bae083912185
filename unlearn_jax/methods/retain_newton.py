"""Forgetting where the retain set is flat: Newton's steps in a trust region."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator
from unlearn_jax.data.accumulate import accumulate, collect, present
from unlearn_jax.data.batch import sample
from unlearn_jax.loop import rounds
from unlearn_jax.methods.forget_terms import REDUCTIONS
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, solving
from unlearn_jax.options import check_number
from unlearn_jax.solvers.inverse import Settings, check_choice, curvature_of, solve
from unlearn_jax.solvers.krylov import lanczos
from unlearn_jax.solvers.solution import both_reports, no_report, report, usable
from unlearn_jax.solvers.stacked import combine, project
from unlearn_jax.train.asked import asked
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Params, PRNGKey, Scalar, Variables

HALVINGS = 6
COMPLEMENT = "complement"


@entrance()
def retain_newton(
    learner: Learner,
    *,
    nats: float = 0.01,
    budget: float = 0.05,
    steps: int = 5,
    beta: float = 0.1,
    reduction: str = "sum",
    inverse: str = "cg",
    damping: float = 0.01,
    samples: int = 256,
    tol: float = 1e-2,
    max_steps: int = 10,
    rank: int = 20,
    batch_size: int = 256,
) -> Method:
    """θ ← θ - t (G + damping I)⁻¹ ∇F(θ), G the Gauss-Newton matrix of the retain set.

    With ``inverse="complement"``, θ ← θ - t (I - Q Qᵀ) ∇F(θ), Q the eigenvectors of the
    largest eigenvalues of G: what the retain set feels most is left alone, and the rest
    is plain descent.

    F is the loss of ``npo``. The length t puts each step on the border of a trust
    region, ½ t² dᵀ G d = ``nats``, and is then halved until the retain loss itself,
    over all retained examples, has risen by no more than ``budget`` since the start;
    a step that six halvings do not save is not taken.

    Args:
        learner: Model and loss; l2 is left out.
        nats: Radius: mean KL divergence of the retained outputs to second order, in the
            unit of the learner's loss.
        budget: Most rise of the mean retain loss [nats].
        steps: Newton steps, each with a fresh gradient and curvature.
        beta: As in ``npo``.
        reduction: As in ``npo``.
        inverse: "cg", or another way of :mod:`unlearn_jax.solvers.inverse`: "ekfac",
            "low_rank", "diagonal", "dense"; or "complement".
        damping: Added to the curvature.
        samples: Retained examples in G, drawn anew for every step.
        tol: Relative residual at which CG stops.
        max_steps: Most products of CG.
        rank: Eigenvectors of "complement" and "low_rank".
        batch_size: Examples whose activations are held at once.

    Batch statistics stay.

    Raises:
        ValueError: an unknown name, or an impossible setting.

    Cost: per step one gradient per forget example, some two per sample and product of
        CG ("complement": 2 rank + 10 products), and up to seven forward passes over the
        retain set.
    Source: no single one: CG on the Gauss-Newton matrix of Martens 2010, the trust
        region of Schulman et al. 2015, arXiv 1502.05477, the loss of Zhang et al. 2024,
        arXiv 2404.05868.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"reduction {reduction!r} is unknown; choose from {', '.join(REDUCTIONS)}"
        )
    for name, value in (("nats", nats), ("beta", beta)):
        check_number(f"retain_newton: {name}", value, positive=True)
    settings = Settings(damping, tol, max_steps, rank, batch_size=None)
    check_choice(
        "gauss_newton", "low_rank" if inverse == COMPLEMENT else inverse, settings
    )
    model = learner.model

    def likelihood(outputs: Any, targets: Any) -> Any:
        said = asked(outputs, targets)
        return said.nll / (said.length if reduction == "token_mean" else 1)

    def slope_of(objective: Objective, params: Params, data: Batch, old: Any) -> Params:
        """∇ of the mean of (2/β) softplus(-β (s - s₀)): weights on ∇s, per example."""
        said = objective._replace(loss=likelihood)
        pairs = data._replace(targets=(data.targets, old))

        def part(batch: Batch, at: Params) -> Params:
            targets, before = batch.targets
            batch = present(Batch(batch.inputs, (targets, before), batch.weights))
            targets, before = batch.targets
            told = Batch(batch.inputs, targets, batch.weights)
            gap = said.example_losses(at, told) - before
            pressed = -2 * jax.nn.sigmoid(-beta * gap) * told.weights
            return jax.grad(said.total)(at, told._replace(weights=pressed))

        total = accumulate(part, pairs, params, batch_size=batch_size)
        mass = jnp.sum(data.weights)
        return tree.scale(1 / jnp.where(mass > 0, mass, 1), total)

    def mean_loss(objective: Objective, params: Params, data: Batch) -> Scalar:
        def part(batch: Batch, at: Params) -> Scalar:
            return objective.total(at, present(batch))

        total = accumulate(part, data, params, batch_size=batch_size)
        mass = jnp.sum(data.weights)
        return total / jnp.where(mass > 0, mass, 1)

    def step(index: Any, place: Any, constants: Any) -> Any:
        params, told = place
        key, variables, request, old, most = constants
        objective = bind(model, variables.stats, learner.loss)
        draw_key, solve_key = jax.random.split(jax.random.fold_in(key, index))
        size = min(samples, request.retain.weights.shape[0])
        drawn = present(sample(draw_key, request.retain, size))
        slope = slope_of(objective, params, request.forget, old)
        matrix = curvature_of("gauss_newton", objective, params, drawn)
        if inverse == COMPLEMENT:
            own = no_report()
            direction = tree.scale(
                -1.0, outside(solve_key, matrix.operator, slope, rank)
            )
        else:
            solution = solve(solve_key, matrix, slope, inverse, settings)
            direction, own = tree.scale(-1.0, usable(solution)), report(solution)
        length = border(direction, matrix.operator.matvec, nats)
        share = backtracked(
            lambda t: mean_loss(
                objective, tree.axpy(t, direction, params), request.retain
            ),
            length,
            most,
        )
        moved = tree.axpy(share, direction, params)
        return moved, both_reports(told, own)

    def reported(
        key: PRNGKey, state: tuple[()], variables: Variables, request: Request
    ) -> Any:
        objective = bind(model, variables.stats, learner.loss)
        start = variables.params

        def said(pair: Any, at: Variables) -> Any:
            return likelihood(model.apply(at, pair[0]), pair[1])

        forget = request.forget
        pair = jax.tree.map(jnp.asarray, (forget.inputs, forget.targets))
        old = collect(said, pair, variables)
        most = mean_loss(objective, start, request.retain) + budget
        constants = (key, variables, request, old, most)
        params, told = rounds(steps, step, (start, no_report()), constants)
        idle = jnp.sum(forget.weights) == 0
        params = tree.where(idle, start, params)
        return variables._replace(params=params), state, told

    return solving(reported)


def outside(
    key: PRNGKey, operator: LinearOperator, vector: Params, rank: int
) -> Params:
    """(I - Q Qᵀ) v, Q the eigenvectors of the largest eigenvalues."""
    largest = min(rank, tree.size(vector))
    basis = lanczos(key, operator, rank=largest).basis
    return tree.subtract(vector, combine(project(basis, vector), basis))


def border(direction: Params, product: Callable[[Any], Any], radius: float) -> Scalar:
    """The t at which ½ t² dᵀ G d is the radius; 0 where there is no direction."""
    bend = 0.5 * tree.dot(direction, product(direction))
    flat = bend <= 0
    length = jnp.sqrt(radius / jnp.where(flat, 1, bend))
    return jnp.where(flat, 0, length)


def backtracked(loss: Callable[[Any], Any], length: Scalar, most: Scalar) -> Scalar:
    """The longest of length, length/2, … at which a loss is at most that; else 0."""

    def going(state: Any) -> Any:
        _, found, halvings = state
        return ~(found <= most) & (halvings < HALVINGS)

    def halve(state: Any) -> Any:
        share, _, halvings = state
        return share / 2, loss(share / 2), halvings + 1

    zero = jnp.zeros((), jnp.int32)
    begin = (length, loss(length), zero)
    share, found, _ = jax.lax.while_loop(going, halve, begin)
    # A loss that is not a number is not at most anything.
    return jnp.where(found <= most, share, 0)
