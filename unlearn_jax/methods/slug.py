"""SLUG: one step in one layer, the one that matters most and disturbs least."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import as_trained
from unlearn_jax.curvature.operator import LinearOperator
from unlearn_jax.loop import fori_loop
from unlearn_jax.methods.centres import CLASS_GOAL, gone_classes, unseen_accuracy
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.methods.potion import label_agreement
from unlearn_jax.methods.removal import stiffness_of
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.solvers.inverse import curvature_of
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables

STEPS = ("gradient", "newton")


@entrance()
def slug(
    learner: Learner,
    *,
    step: str = "gradient",
    goal: float | None = None,
    tries: int = 10,
    damping: float | None = None,
    max_steps: int = 20,
    batch_size: int = 256,
) -> Method:
    """Ascend in one kernel, as far as the forget set's labels take to be forgotten.

    Forget and retain set are halved at random. With g and r their mean gradients on the
    first halves, a kernel θ has the importance ‖g‖ / ‖θ‖ and the alignment |cos(g, r)|.
    For each on the Pareto front of high importance and low alignment the length of a
    step is found on the other half of the forget set: from ‖θ‖ / 10 it doubles until
    few enough labels are predicted, then it is bisected. Of these steps the one is
    taken with which most labels of the retain set's other half are predicted.

    Args:
        learner: Model and loss; of its recipe the decay and, for "newton", the rates.
        step: "gradient": along g. "newton": along (H + 1/T)⁻¹ g, H the Gauss-Newton
            matrix of the first retained half within this kernel, weight decay and l2
            with it: what raises the forget loss most for what it costs the retain set.
        goal: Largest share of forget labels that may be predicted (0 to 1). None: 0.01
            where a class is forgotten as a whole; else what a model without a tenth of
            the training set reaches there.
        tries: Lengths that are tried for each kernel.
        damping: In place of 1/T, T the sum of the rates of training.
        max_steps: Most products of the solver of "newton".
        batch_size: Examples held at once.

    Biases, norms and what else has fewer than two axes never move; batch statistics
    stay. Where no length reaches the goal, the longest is taken.

    Returns:
        Method; its state is the goal for examples whose class is retained.

    Raises:
        ValueError: an unknown ``step``, or "newton" with a recipe of "adam" without a
            damping; from ``forget``, a model without a kernel.

    Cost: prepare, a training run unless ``goal`` is given; forget, one gradient for
        half of all examples, and for each kernel on the front ``tries`` forward passes
        over half of the forget set and one over half of the retain set; "newton" up to
        max_steps × 2 gradients more for each half of the retain set.
    Source: Cai et al. 2024, SLUG, with the lengths of its code. Differs: theirs edits
        models of images and text; they search and report on the same examples, and
        leave the choice among the front to the reader. Not published: "newton".
    """
    if step not in STEPS:
        raise ValueError(f"step {step!r} is unknown; choose from {', '.join(STEPS)}")
    learner = as_trained(learner)
    spring = stiffness_of(learner, damping) if step == "newton" else None

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Array:
        del original
        if goal is not None:
            return jnp.asarray(goal, jnp.float32)
        return unseen_accuracy(key, learner, train).astype(jnp.float32)

    def direction(
        ascent: Params, objective: Any, params: Params, request: Request, chosen: Any
    ) -> Params:
        """Of the kernel that is 1 in ``chosen``; zero elsewhere."""
        own = tree.where(chosen, ascent, tree.zeros_like(ascent))
        if spring is None:
            return own
        matrix = curvature_of(
            "gauss_newton", objective, params, request.retain, batch_size=batch_size
        )
        stiff = spring(request)

        def product(v: Params) -> Params:
            inner = tree.where(chosen, v, tree.zeros_like(v))
            curved = matrix.operator.matvec(inner)
            within = tree.where(chosen, curved, tree.zeros_like(v))
            return tree.axpy(stiff, v, within)

        within = LinearOperator(product, matrix.operator.like)
        return conjugate_gradient(within, own, tol=1e-3, max_steps=max_steps).value

    def forget(
        key: PRNGKey, known: Array, variables: Variables, request: Request
    ) -> tuple[Variables, Array]:
        params = variables.params
        lost_key, kept_key = jax.random.split(key)
        lost, lost_out = halves(lost_key, request.forget)
        kept, kept_out = halves(kept_key, request.retain)
        objective = bind(learner.model, variables.stats, learner.loss, learner.l2)
        ascent, slope = (
            risk_gradient(
                objective._replace(l2=0.0), params, part, batch_size=batch_size
            )
            for part in (lost, kept)
        )
        front = pareto_front(*importance_and_alignment(params, ascent, slope))
        outputs = jax.eval_shape(learner.model.apply, variables, lost.inputs)
        whole = jnp.any(gone_classes(request, outputs.shape[-1]))
        aim = jnp.where(whole & (goal is None), CLASS_GOAL, known)

        def known_labels(at: Params, data: Batch) -> Array:
            moved = variables._replace(params=at)
            return label_agreement(learner, moved, data).astype(jnp.float32)

        def try_kernel(number: Array) -> tuple[Array, Array]:
            """Length of this kernel's step, and what it leaves of the retain set."""
            along, unit = line(number)

            def narrow(_: Any, ends: tuple[Array, Array, Array]) -> Any:
                low, high, length = ends
                left = known_labels(tree.axpy(length, along, params), lost_out)
                enough = left <= aim
                high = jnp.where(enough, length, high)
                low = jnp.where(enough, low, length)
                middle = jnp.where(jnp.isfinite(high), (low + high) / 2, 2 * low)
                return low, high, middle

            start = jnp.zeros_like(unit), jnp.full_like(unit, jnp.inf), unit
            low, high, _ = fori_loop(0, tries, narrow, start, along)
            length = jnp.where(jnp.isfinite(high), high, low)
            moved = tree.axpy(length, along, params)
            reached = known_labels(moved, lost_out) <= aim
            return length, known_labels(moved, kept_out) + reached

        def line(number: Array) -> tuple[Params, Array]:
            """Direction of a kernel, and a tenth of its norm in units of that."""
            chosen = jax.tree.map(lambda own: number == own, kernels(params))
            along = direction(
                ascent, objective, params, request._replace(retain=kept), chosen
            )
            own = tree.where(chosen, params, tree.zeros_like(params))
            long = tree.norm(along)
            return along, tree.norm(own) / (10 * jnp.where(long > 0, long, 1))

        def score(number: Array) -> tuple[Array, Array]:
            like = jax.eval_shape(try_kernel, number)
            no = jnp.zeros((), like[0].dtype), jnp.full((), -jnp.inf, like[1].dtype)
            return jax.lax.cond(front[number], try_kernel, lambda _: no, number)

        lengths, merits = jax.lax.map(score, jnp.arange(front.size))
        best = jnp.argmax(merits)
        moved = tree.axpy(lengths[best], line(best)[0], params)
        some = jnp.any(request.forget.weights > 0)
        return variables._replace(params=tree.where(some, moved, params)), known

    return Method(prepare, forget)


class Kernels(NamedTuple):
    """Value: one number for each kernel, in the order of the leaves.

    Attributes:
        importance: ‖g‖ / ‖θ‖.
        alignment: |cos(g, r)|.
    """

    importance: Array
    alignment: Array


def kernels(params: Params) -> Any:
    """Tree like the parameters: the number of a kernel, -1 on other leaves.

    Raises:
        ValueError: there is no kernel.
    """
    leaves, structure = jax.tree.flatten(params)
    number, numbers = 0, []
    for leaf in leaves:
        numbers.append(number if leaf.ndim >= 2 else -1)
        number += leaf.ndim >= 2
    if not number:
        raise ValueError(
            "no parameter has two axes or more, so there is no layer to step in: take "
            "another method"
        )
    return jax.tree.unflatten(structure, numbers)


def importance_and_alignment(params: Params, ascent: Params, slope: Params) -> Kernels:
    """Both for every kernel; where a gradient is zero, both are zero."""
    rows = []
    trees = (params, ascent, slope, kernels(params))
    for theta, g, r, number in zip(*map(jax.tree.leaves, trees), strict=True):
        if number >= 0:
            size, up, down = (tree.norm(leaf) for leaf in (theta, g, r))
            both = up * down
            cosine = jnp.abs(tree.dot(g, r)) / jnp.where(both > 0, both, 1)
            rows.append((up / jnp.where(size > 0, size, 1), cosine))
    return Kernels(*map(jnp.stack, zip(*rows, strict=True)))


def pareto_front(importance: Array, alignment: Array) -> Array:
    """(l,) those that no other beats in both, strictly."""
    more = importance[:, None] > importance[None]
    better = more & (alignment[:, None] < alignment[None])
    return ~jnp.any(better, axis=0)


def halves(key: PRNGKey, data: Batch) -> tuple[Batch, Batch]:
    """Two random halves by weight; of a single example both are it."""
    there = data.weights > 0
    drawn = jax.random.uniform(key, there.shape, jnp.float32)
    place = jnp.argsort(jnp.argsort(jnp.where(there, drawn, 2.0)))
    count = jnp.sum(there)
    first = place < (count + 1) // 2
    one, other = (
        data._replace(weights=jnp.where(part, data.weights, 0))
        for part in (first, ~first | (count == 1))
    )
    return one, other
