"""The last layer in closed form: representer values, influence, leave-one-out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import Attribution, Evidence, kept_pairs
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.attribution.leave_out import leave_one_out_effects
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.operator import LinearOperator
from unlearn_jax.curvature.per_example import output_slopes
from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.loop import repeat
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.solvers.solution import usable
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Variables
from unlearn_kernels.precision import EXACT, exact_product

KINDS = ("representer", "influence", "leave_one_out")


class HeadState(NamedTuple):
    """Value: models and their last layers, fitted anew.

    Attributes:
        models: Variables with a leading axis m.
        heads: Last linear maps, the bias as the last row.
    """

    models: Variables
    heads: Float[Array, "m f k"]


@entrance()
def representer(
    learner: Learner,
    *,
    l2: float = 1e-3,
    kind: str = "representer",
    newton_steps: int = 20,
    tol: float = 1e-8,
    max_steps: int = 200,
    batch_size: int = 256,
) -> Attribution:
    """Effects through the last layer alone, which is fitted anew; features stay.

    With features φ (a constant one added for the bias), V minimises Σₙ wₙ ℓ(φₙ V) / W +
    l2/2 ‖V‖². For squared error it is known in closed form, otherwise by Newton's
    method; the loss has to be convex in the outputs. With gₙ = ∂ℓₙ/∂outputs and s_q the
    slope of the output that is explained, by the outputs:

    * "representer": −⟨φ_q, φₙ⟩ ⟨s_q, gₙ⟩ / (l2 W). The terms of the prediction itself:
      Σₙ wₙ effects[q, n] = f_q for a raw output f. What an example holds up now, not
      what would replace it.
    * "influence": −s_q φ_q H⁻¹ (φₙ gₙ + l2 V) / W, H the Hessian in V: the derivative
      of the retrained head's output.
    * "leave_one_out", squared error only: the exact change of the outputs when n is
      left out, at a penalty of l2 W in the sum over examples, divided by −wₙ.

    All are means over ``evidence.models``, linear in the raw outputs.

    Args:
        learner: Model and loss; its own l2 is not read.
        l2: Coefficient of ½‖V‖², bias included, beside the weighted mean loss.
        kind: See above.
        newton_steps: Most, where the loss is not ``squared_error``.
        tol: Relative residual of inner solves (no unit).
        max_steps: Most products of an inner solve.
        batch_size: Examples whose activations are held at once.

    Raises:
        ValueError: an impossible setting, or a kind that the loss does not allow.

    Cost: a forward pass over the training examples for each model; representer:
        2 q n (f + k); influence: a solve for each query and 2 q n (f + k) · k for its
        scores; leave_one_out: n f² + f³/3 and 2 q n (f + k).
    Source: Yeh et al. 2018, arXiv 1811.09720, thm. 3.1; leave-one-out: Cook 1977.
        Differs: weights, the head fitted to its minimum instead of trained on, and
        influence beside it.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; choose from {', '.join(KINDS)}")
    exact = learner.loss is squared_error
    if kind == "leave_one_out" and not exact:
        raise ValueError("leave_one_out has a closed form for squared_error alone")
    if not l2 > 0:
        raise ValueError(f"l2 is {l2}, expected a positive number")
    for what, given in (
        ("newton_steps", newton_steps),
        ("max_steps", max_steps),
        ("batch_size", batch_size),
    ):
        if given < 1:
            raise ValueError(f"{what} must be at least 1, got {given}")
    objective = Objective(_predict, learner.loss, l2)
    options: dict[str, Any] = {"tol": tol, "max_steps": max_steps}

    def embed(variables: Variables, batch: Batch) -> Batch:
        """The batch with features and a constant in place of inputs."""
        seen = present(batch)

        def one(inputs: Any, at: Variables) -> Array:
            return learner.model.features(at, inputs)

        found = collect(one, seen.inputs, variables, batch_size=batch_size)
        if found.ndim != 2:
            raise ValueError(
                f"the model's features have shape {found.shape}, expected (n, f): one "
                f"vector per example"
            )
        ones = jnp.ones((len(found), 1), found.dtype)
        return seen._replace(inputs=jnp.concatenate([found, ones], axis=1))

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> HeadState:
        del key
        first = tree.member(evidence.models, 0)
        like = jax.eval_shape(learner.model.apply, first, train.inputs)

        def fit(variables: Variables) -> Array:
            rows = embed(variables, train)
            if exact:
                return _ridge(rows, l2)
            start = jnp.zeros((rows.inputs.shape[1], like.shape[-1]), like.dtype)
            return _newton(objective, rows, start, newton_steps, options)

        return HeadState(evidence.models, jax.lax.map(fit, evidence.models))

    def effects(
        state: HeadState, train: Batch, queries: Batch, output_fn: Any
    ) -> Array:
        def one(variables: Variables, head: Array) -> Array:
            rows, asked = embed(variables, train), embed(variables, queries)
            outputs = _predict(head, asked.inputs)
            slopes = jax.grad(lambda o: jnp.sum(output_fn(o, asked.targets)))(outputs)
            mass = _mass(rows)
            if kind == "leave_one_out":
                found = leave_one_out_effects(
                    *rows[:2], asked.inputs, l2=l2 * mass, weights=rows.weights
                )
                reach = -found.reach / _safe(rows.weights)[None]
                return reach * exact_product(slopes, found.pull.T)
            pulls = output_slopes(objective, _predict(head, rows.inputs), rows.targets)
            if kind == "representer":
                along = exact_product(asked.inputs, rows.inputs.T)
                return -along * exact_product(slopes, pulls.T) / (l2 * mass)
            directions = asked.inputs[:, :, None] * slopes[:, None, :]
            solved = _solve_block(objective, rows, head, directions, options)
            shift = l2 * jnp.einsum("qfk,fk->q", solved, head, precision=EXACT)

            def against(block: Any, solved: Array) -> Array:
                features, pull = block
                return jnp.einsum(
                    "nf,qfk,nk->nq", features, solved, pull, precision=EXACT
                )

            scores = collect(
                against, (rows.inputs, pulls), solved, batch_size=batch_size
            ).T
            return -(scores + shift[:, None]) / mass

        scores = _mean_over_models(one, state)
        return kept_pairs(scores, train, queries)

    def change(
        state: HeadState, train: Batch, queries: Batch, weights_change: Any
    ) -> Array:
        moved = jnp.where(train.weights > 0, weights_change, 0)

        def one(variables: Variables, head: Array) -> Array:
            rows, asked = embed(variables, train), embed(variables, queries)
            mass, dw = _mass(rows), moved.astype(head.dtype)[:, None]
            if kind == "leave_one_out":
                found = leave_one_out_effects(
                    *rows[:2], asked.inputs, l2=l2 * mass, weights=rows.weights
                )
                shares = -dw / _safe(rows.weights)[:, None]
                return exact_product(found.reach, shares * found.pull)
            pulls = output_slopes(objective, _predict(head, rows.inputs), rows.targets)
            step = -exact_product(rows.inputs.T, dw * pulls) / mass
            if kind == "representer":
                return exact_product(asked.inputs, step) / l2
            step = step - l2 * jnp.sum(dw) / mass * head
            matrix = gauss_newton(objective, head, rows)
            moved_head = usable(conjugate_gradient(matrix, step, **options))
            return exact_product(asked.inputs, moved_head)

        found = _mean_over_models(one, state)
        return jnp.where(queries.weights[:, None] != 0, found, 0)

    return Attribution(prepare, effects, change)


def _predict(head: Array, features: Any) -> Array:
    return exact_product(features, head)


def _ridge(rows: Batch, l2: float) -> Array:
    shares = (rows.weights / _mass(rows))[:, None]
    heavy = (rows.inputs * shares).T
    gram = exact_product(heavy, rows.inputs)
    gram = gram + l2 * jnp.eye(len(gram), dtype=gram.dtype)
    return jax.scipy.linalg.solve(
        gram, exact_product(heavy, rows.targets), assume_a="pos"
    )


def _newton(
    objective: Objective, rows: Batch, start: Array, steps: int, options: Any
) -> Array:
    """Newton's method, each step the best of full, half, quarter … and none."""

    def step(_: Any, head: Array, rows: Batch) -> Array:
        slope = jax.grad(objective.risk)(head, rows)
        matrix = gauss_newton(objective, head, rows)
        full = conjugate_gradient(matrix, slope, **options).value
        lengths = jnp.asarray([1, 0.5, 0.25, 0.0625, 2**-8, 0], head.dtype)
        risks = jax.lax.map(lambda t: objective.risk(head - t * full, rows), lengths)
        lowest = jnp.min(risks)
        # Within rounding of the lowest the longest: at the minimum risks are all equal.
        noise = 8 * jnp.finfo(risks.dtype).eps * jnp.abs(lowest)
        return head - lengths[jnp.argmax(risks <= lowest + noise)] * full

    return repeat(steps, step, start, rows)


def _solve_block(
    objective: Objective, rows: Batch, head: Array, directions: Array, options: Any
) -> Array:
    """H⁻¹ of several directions; for squared error one factorisation."""
    if objective.loss is squared_error:
        shares = (rows.weights / _mass(rows))[:, None]
        gram = exact_product((rows.inputs * shares).T, rows.inputs)
        gram = gram + objective.l2 * jnp.eye(len(gram), dtype=gram.dtype)
        lower = jnp.linalg.cholesky(gram)
        flat = jnp.moveaxis(directions, 1, 0).reshape(len(gram), -1)
        solved = jax.scipy.linalg.cho_solve((lower, True), flat)
        q, _, k = directions.shape
        return jnp.moveaxis(solved.reshape(len(gram), q, k), 0, 1)
    matrix: LinearOperator = gauss_newton(objective, head, rows)
    return jax.lax.map(
        lambda d: usable(conjugate_gradient(matrix, d, **options)),
        directions,
        batch_size=32,
    )


def _mean_over_models(
    function: Callable[[Variables, Array], Array], state: HeadState
) -> Array:
    found = jax.lax.map(lambda s: function(*s), state)
    return jnp.mean(found, axis=0)


def _mass(rows: Batch) -> Array:
    mass = jnp.sum(rows.weights)
    return jnp.where(mass > 0, mass, 1)


def _safe(weights: Any) -> Array:
    return jnp.where(weights > 0, weights, 1)
