"""K-FAC: each layer's Fisher block as a Kronecker product of two small matrices."""

from typing import Any

from jax.sharding import Mesh

from unlearn_jax.curvature.kronecker_blocks import (
    Block,
    Diagonal,
    Factors,
    Full,
    Kronecker,
    RowFactors,
)
from unlearn_jax.curvature.label_slopes import (
    Plan,
    check_labels,
    mean_over_labels,
)
from unlearn_jax.curvature.moments import input_moment, slope_moment
from unlearn_jax.curvature.per_example import Gradients
from unlearn_jax.curvature.rearrangement import find_places
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import check_real, entered
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params, PRNGKey


@automatic
def kfac(
    key: PRNGKey | None,
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    labels: str = "true",
    samples: int = 1,
    shared: str = "expand",
    max_block: int = 512,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Kronecker:
    """Kronecker-factored approximation of a Fisher matrix, a weighted mean over data.

    For a weight with inputs a and slopes s at positions t = 1…T of an example:

    * ``shared="expand"``: A = E[Σₜ a aᵀ] / T and G = E[Σₜ s sᵀ], as if positions were
      examples of their own. Exact for a deep linear net with squared error at each
      position and exact labels.
    * ``shared="reduce"``: A = E[ā āᵀ] with ā the mean over positions and G = E[ŝ ŝᵀ]
      with ŝ the sum. Exact for a deep linear net with squared error on the mean (or
      sum) over positions and exact labels.

    Both are the same for T = 1, and exact for any net on one example with one label.
    Groups have factors of their own. A table that is looked up has one-hot inputs: A is
    the diagonal of row frequencies (for "reduce" the diagonal of A). Other parameters
    (biases, scales, weights used twice) keep their full block up to ``max_block``
    numbers, above that its diagonal; both exact.

    Args:
        key: Draws labels for "sampled"; else not read and may be None.
        objective: Loss bound to frozen batch statistics; ``l2`` is left out.
        params: Where the gradients are taken.
        data: Examples with weights; zero weight leaves an example out.
        labels: "true": the empirical Fisher; "sampled": from the model's distribution
            (softmax for class indices, Gaussian for ``squared_error``); "exact": by
            the Hessian of the loss in the outputs, which must be convex.
        samples: Draws for each example under "sampled".
        shared: See above.
        max_block: Largest size of a full block.
        batch_size: Examples whose inputs and slopes are held at once; None takes as
            many as fit the cache on CPU, or a gigabyte elsewhere.
        mesh: Split the examples over its devices.

    Returns:
        Value with ``Factors``, ``RowFactors``, ``Full`` and ``Diagonal`` blocks; zero
        when no example has weight.

    Raises:
        ValueError: unknown ``labels`` or ``shared``, no samples, labels that cannot be
            drawn.

    Cost: a forward and a backward pass without weight gradients (a backward pass for
        each draw, and for each number of an example's outputs under "exact"), and
        2 n T (i² + o²) operations a layer.
    Source: Martens & Grosse 2015, arXiv 1503.05671; positions: Eschenhagen et al. 2023,
        arXiv 2311.00636, §3. Differs: a bias has a full block of its own.
    """
    params, data = entered("kfac", objective, params, data, alone=True)
    check_real("kfac", params)
    check_labels(labels, key, objective, params, data, "kfac")
    if shared not in ("expand", "reduce"):
        raise ValueError(f"kfac got shared={shared!r}, expected 'expand' or 'reduce'")
    if samples < 1:
        raise ValueError(f"kfac got samples={samples}, expected at least 1")
    taped = tape(objective.predict, params, data.inputs)
    places = find_places(taped)

    def left(gradients: Gradients, weights: Array) -> Any:
        pairs = zip(gradients, places.views, strict=True)
        return [input_moment(g, weights, shared, view) for g, view in pairs]

    def right(gradients: Gradients, weights: Array) -> Any:
        return [slope_moment(g, weights, shared, max_block) for g in gradients]

    plan = Plan(labels, samples, left, right)
    moments = mean_over_labels(
        key, objective, params, data, plan=plan, batch_size=batch_size, mesh=mesh
    )
    blocks = [_block(*pair) for pair in zip(*moments, strict=True)]
    return Kronecker(tuple(blocks), places)


def _block(left: Array | None, right: Array) -> Block:
    if left is None:
        return Full(right) if right.ndim == 2 else Diagonal(right)
    return Factors(left, right) if left.ndim == 3 else RowFactors(left, right)
