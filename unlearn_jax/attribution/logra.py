"""LoGra: influence with each layer's gradients projected from both sides.

A layer's gradient Σₜ aₜ ⊗ sₜ becomes Σₜ (P aₜ) ⊗ (Q sₜ), without being formed. The
Fisher matrix of these small features is inverted whole, layer by layer.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import (
    Attribution,
    Evidence,
    as_trained,
    kept_pairs,
)
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.attribution.projection import form_of, lift_leaf, project_leaf
from unlearn_jax.attribution.trak_kernels import (
    centre,
    effective_change,
    mean_over_models,
    outputs_along,
    outputs_like,
    pairs_like,
    query_gradients,
)
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_blocks import Block, Factors, RowFactors
from unlearn_jax.curvature.per_example import (
    Gradient,
    Gradients,
    Outer,
    Rows,
    Whole,
    factored_site,
    from_form,
    loss_gradients,
    sites_of,
)
from unlearn_jax.curvature.tapping import Tape, tape
from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables, Weights
from unlearn_kernels.precision import EXACT, exact_product


class Sides(NamedTuple):
    """Value: orthonormal columns for a layer's inputs and slopes, by group."""

    inputs: Float[Array, "g i a"]
    slopes: Float[Array, "g o b"]


Map: TypeAlias = Sides | None


class LayerFeatures(NamedTuple):
    """Value: what LoGra keeps of the training examples.

    Attributes:
        models: Variables with a leading axis m.
        keys: (m,) of what is projected by signs.
        maps: For each leaf with factors ``Sides`` with a leading axis m, else None.
        solved: For each leaf (m, n, features): (F + damping)⁻¹ f / W, zero where an
            example has no weight.
    """

    models: Variables
    keys: Any
    maps: tuple[Map, ...]
    solved: tuple[Array, ...]


@entrance()
def logra(
    learner: Learner,
    *,
    rank: int = 16,
    start: str = "random",
    damping: float = 0.1,
    max_block: int = 512,
    centred: bool = False,
    batch_size: int = 256,
    query_batch_size: int = 256,
) -> Attribution:
    """Empirical-Fisher influence of two-sided projections, one block for each layer.

    Args:
        learner: Model, loss, l2 and recipe of the evidence's models.
        rank: Directions that the inputs, and the slopes, of a layer (group) are
            projected to, at most their sizes: rank² features.
        start: The directions. "random": orthonormal, at random. "pca": leading
            eigenvectors of the K-FAC factors of the training examples.
        damping: Added to each layer's Fisher matrix, in units of its mean eigenvalue;
            the learner's l2 is added besides.
        max_block: Parameters that are no layer's weight (biases, scales, weights used
            twice) are kept whole up to this many numbers; larger ones are projected
            by random signs to so many.
        centred: Take weighted means off, see :func:`unlearn_jax.attribution.trak.trak`.
        batch_size: Training examples whose inputs and slopes are held at once.
        query_batch_size: Queries for which they are.

    Returns:
        Attribution that reads ``evidence.models``, linear: ``change`` is
        ``effects @ Δw``.

    Raises:
        ValueError: an unknown ``start``, sizes below 1, a negative damping.

    Cost: a gradient and n t (i + o) rank operations a layer for each model, and
        rank⁶ / 3 for its inverse; memory m n rank² numbers a layer. "pca" adds K-FAC
        and an eigenproblem for each factor.
    Source: Choe et al. 2024, arXiv 2405.13954, §3. Differs: orthonormal directions, so
        that full rank is block-diagonal empirical-Fisher influence; other parameters
        and tables are served; effects of weight, hence the sign and 1 / W.
    """
    learner = as_trained(learner)
    if start not in ("random", "pca"):
        raise ValueError(f"start {start!r} is unknown; choose from random, pca")
    if not damping >= 0:
        raise ValueError(f"damping must not be negative, got {damping}")
    if min(rank, max_block, batch_size, query_batch_size) < 1:
        raise ValueError(
            f"got rank {rank}, max_block {max_block}, batches of {batch_size} and "
            f"{query_batch_size}, expected at least 1 of each"
        )

    def objective_at(at: Variables) -> Objective:
        return bind(learner.model, at.stats, learner.loss)

    def slopes(batch: Batch, key: PRNGKey, at: Variables, maps: Any) -> Any:
        found = loss_gradients(objective_at(at), at.params, present(batch))
        features = _features(key, *found, maps, max_block)
        kept = (batch.weights > 0)[:, None]
        return tuple(jnp.where(kept, leaf, 0) for leaf in features)

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> LayerFeatures:
        train = jax.tree.map(jnp.asarray, train)
        keys = jax.random.split(key, tree.leading_axis(evidence.models))
        mass = jnp.sum(train.weights)
        mass = jnp.where(mass > 0, mass, 1)

        def one(own: tuple[PRNGKey, Variables]) -> Any:
            key, at = own
            objective = objective_at(at)
            taped = tape(objective.predict, at.params, train.inputs)
            if start == "pca":
                state = kfac(None, objective, at.params, train, max_block=1)
                maps = tuple(_leading(block, rank) for block in state.blocks)
            else:
                leaves = range(taped.structure.num_leaves)
                maps = tuple(_random(key, taped, leaf, rank) for leaf in leaves)
            found = collect(slopes, train, key, at, maps, batch_size=batch_size)
            return maps, tuple(solve(features) for features in found)

        def solve(features: Array) -> Array:
            weights = (train.weights / mass).astype(features.dtype)[:, None]
            fisher = jnp.matmul((weights * features).T, features, precision=EXACT)
            size = len(fisher)
            ridge = damping * jnp.trace(fisher) / size + learner.l2
            fisher = fisher + ridge * jnp.eye(size, dtype=fisher.dtype)
            factor = jnp.linalg.cholesky(fisher)
            solved = jax.scipy.linalg.cho_solve((factor, True), features.T).T
            return solved / mass.astype(features.dtype)

        maps, solved = jax.lax.map(one, (keys, evidence.models))
        return LayerFeatures(evidence.models, keys, maps, solved)

    def effects(
        state: LayerFeatures,
        train: Batch,
        queries: Batch,
        output_fn: Callable[[Any, Any], Any],
    ) -> Float[Array, "q n"]:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))

        def features(batch: Batch, key: PRNGKey, at: Variables, maps: Any) -> Any:
            predict = objective_at(at).predict
            found = query_gradients(predict, at.params, batch, output_fn)
            return _features(key, *found, maps, max_block)

        def one(at: Variables, key: PRNGKey, maps: Any, solved: Any) -> Array:
            own = collect(features, queries, key, at, maps, batch_size=query_batch_size)
            parts = [
                jnp.matmul(a, b.T, precision=EXACT)
                for a, b in zip(own, solved, strict=True)
            ]
            return -sum(parts[1:], parts[0])

        like = pairs_like(queries, train, state.solved[0].dtype)
        scores = mean_over_models(one, like, *_stacked(state))
        if centred:
            scores = centre(scores, train)
        return kept_pairs(scores, train, queries)

    def change(
        state: LayerFeatures, train: Batch, queries: Batch, weights_change: Weights
    ) -> Float[Array, "q k"]:
        queries = jax.tree.map(jnp.asarray, queries)
        moved = -effective_change(train, weights_change, centred)

        def one(at: Variables, key: PRNGKey, maps: Any, solved: Any) -> Array:
            taped = tape(objective_at(at).predict, at.params, queries.inputs)
            vectors = [exact_product(moved.astype(part.dtype), part) for part in solved]
            direction = _lifted(key, taped, vectors, maps, max_block)
            return outputs_along(
                learner, at, queries, direction, batch_size=query_batch_size
            )

        like = outputs_like(learner, state.models, queries)
        found = mean_over_models(one, like, *_stacked(state))
        return jnp.where(queries.weights[:, None] != 0, found, 0)

    return Attribution(prepare, effects, change)


def _stacked(state: LayerFeatures) -> tuple[Any, ...]:
    return state.models, state.keys, state.maps, state.solved


def _features(
    key: PRNGKey,
    taped: Tape,
    gradients: Gradients,
    maps: tuple[Map, ...],
    max_block: int,
) -> tuple[Array, ...]:
    """For each leaf (n, features)."""

    def one(leaf: int, gradient: Gradient, sides: Map) -> Array:
        if isinstance(gradient, Whole) or sides is None:
            assert isinstance(gradient, Whole)
            values = gradient.values.reshape(len(gradient.values), -1)
            if values.shape[1] <= max_block:
                return values
            return project_leaf(
                key, taped, leaf, gradient, kind="dense", width=max_block
            )
        if isinstance(gradient, Outer):
            inputs = jnp.einsum(
                "ngti,gia->ngta", gradient.inputs, sides.inputs, precision=EXACT
            )
            slopes = gradient.slopes
        else:
            inputs, slopes = _looked_up(gradient, sides)
        slopes = jnp.einsum("ngto,gob->ngtb", slopes, sides.slopes, precision=EXACT)
        found = jnp.einsum("ngta,ngtb->ngab", inputs, slopes, precision=EXACT)
        return found.reshape(len(found), -1)

    pairs = zip(gradients, maps, strict=True)
    return tuple(one(leaf, *pair) for leaf, pair in enumerate(pairs))


def _looked_up(gradient: Rows, sides: Sides) -> tuple[Array, Array]:
    """A table's gradients as those of a product with one-hot inputs, (n, 1, t, ·)."""
    indices, slopes = gradient
    picked = sides.inputs[0].at[indices].get(mode="fill", fill_value=0)
    return picked[:, None], slopes.reshape(*indices.shape, -1)[:, None]


def _lifted(
    key: PRNGKey,
    taped: Tape,
    vectors: list[Array],
    maps: tuple[Map, ...],
    max_block: int,
) -> Params:
    """The transpose of :func:`_features`, shaped like the parameters."""

    def one(leaf: int, vector: Array, sides: Map) -> Array:
        shape = form_of(taped, leaf)
        if sides is None:
            if len(vector) < max_block or len(vector) == math.prod(shape):
                return vector.reshape(shape)
            return lift_leaf(key, taped, leaf, vector, kind="dense")
        small = vector.reshape(len(sides.inputs), sides.inputs.shape[2], -1)
        formed = jnp.einsum(
            "gia,gab,gob->gio", sides.inputs, small, sides.slopes, precision=EXACT
        )
        return from_form(taped, leaf, formed.reshape(shape))

    leaves = [
        one(leaf, *pair) for leaf, pair in enumerate(zip(vectors, maps, strict=True))
    ]
    return jax.tree.unflatten(taped.structure, leaves)


def _random(key: PRNGKey, taped: Tape, leaf: int, rank: int) -> Map:
    """Orthonormal columns at random for a leaf with factors."""
    site = factored_site(sites_of(taped)[leaf])
    if site is None:
        return None
    shape = form_of(taped, leaf)
    if site.kind != "product":
        shape = (1, shape[0], math.prod(shape[1:]))
    like = taped.program.shapes[taped.program.inputs[leaf]]
    dtype = jnp.promote_types(like.dtype, jnp.float32)

    def columns(key: PRNGKey, size: int) -> Array:
        drawn = jax.random.normal(key, (shape[0], size, min(rank, size)), dtype)
        return jnp.linalg.qr(drawn)[0]

    left, right = jax.random.split(jax.random.fold_in(key, leaf))
    return Sides(columns(left, shape[1]), columns(right, shape[2]))


def _leading(block: Block, rank: int) -> Map:
    """Leading eigenvectors of a layer's factors."""
    if isinstance(block, Factors):
        return Sides(*(_top(factor, rank) for factor in block))
    if isinstance(block, RowFactors):
        # The factor of the rows is diagonal: its eigenvectors are single rows.
        size = len(block.rows)
        _, rows = jax.lax.top_k(block.rows, min(rank, size))
        picked = jax.nn.one_hot(rows, size, dtype=block.slopes.dtype).T
        return Sides(picked[None], _top(block.slopes[None], rank))
    return None


def _top(factor: Array, rank: int) -> Array:
    _, vectors = jnp.linalg.eigh(factor)
    return vectors[..., -min(rank, factor.shape[-1]) :]
