"""Per-example gradients in factored form, for any model.

For a layer that is linear in its weight, the gradient of one example is a sum over
positions of (layer input) ⊗ (slope of the layer's output). One forward and one backward
pass over a batch give all of these; n × p numbers are never stored. A parameter used in
several places, or in a way that is not such a layer, has its gradients formed whole,
for the examples of one block.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from unlearn_jax.curvature.layouts import Layout, Lookup
from unlearn_jax.curvature.sites import Site
from unlearn_jax.curvature.steps import Steps, backward, forward, shape_after
from unlearn_jax.curvature.tapping import Tape, linearise, tape, weights_at
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import checked_params
from unlearn_jax.train.objective import Objective
from unlearn_jax.tree import path_names
from unlearn_jax.types import Array, Batch, Params, Path
from unlearn_kernels.cache import second_cache_bytes
from unlearn_kernels.precision import summed
from unlearn_kernels.target import target_platform
from unlearn_kernels.varying import vary

CACHE_BYTES = 24 * 2**20
SECOND_CACHES, POSITIONS_BYTES = 6, 8 * 2**20
"""Times a core's second-level cache, and most, that a block with positions takes."""
DEVICE_BYTES = 2**30


class Outer(NamedTuple):
    """Value: gradients Σₜ inputsₜ ⊗ slopesₜ of a weight used in one product."""

    inputs: Float[Array, "n g t i"]
    slopes: Float[Array, "n g t o"]


class Rows(NamedTuple):
    """Value: gradients of a table whose rows ``indices`` were looked up."""

    indices: Int[Array, "n t"]
    slopes: Float[Array, "n t ..."]


class Whole(NamedTuple):
    """Value: gradients as they are, (n, *shape of the parameter)."""

    values: Float[Array, "n ..."]


Gradient: TypeAlias = Outer | Rows | Whole
Gradients: TypeAlias = tuple[Gradient, ...]
"""One entry for each leaf of the parameters, in order."""


class PerExample(NamedTuple):
    """Description: a model linearised at some examples.

    Attributes:
        tape: Its program and sites.
        outputs: (n, …, k), as ``predict`` gives them.
        pull: From cotangents of the outputs to ``Gradients``; may be called many times.
    """

    tape: Tape
    outputs: Any
    pull: Callable[[Any], Gradients]


@automatic
def per_example(
    predict: Callable[[Any, Any], Any], params: Params, inputs: Any
) -> PerExample:
    """Linearise a model at some examples, keeping gradients factored.

    Dense layers, convolutions of every kind, einsum and attention layers (also inside
    of ``lax.scan``) keep inputs and slopes; embeddings keep the rows that were looked
    up, along any axis; either may be rearranged and multiplied by a number. Biases,
    normalisation and everything else keep the example's own gradient of that parameter.

    Args:
        predict: ``(params, inputs) -> outputs``, in evaluation mode: an example's
            outputs depend on its inputs alone. It is traced with a single example,
            inputs (1, …), and must not create mutable state.
        params: Where.
        inputs: (n, …), or a tree of such arrays.

    Raises:
        ValueError: a leaf that has no derivative, or outputs that are not one array,
            examples first.

    Cost: one forward pass, and two thirds of a gradient for each call of ``pull``;
        examples follow one another where an operation cannot be mapped by ``vmap``;
        memory: inputs and slopes of all layers for the n examples, and the whole
        gradient of parameters used more than once.
    """
    inputs = jax.tree.map(jnp.asarray, inputs)
    params = checked_params("per_example", params)
    params, inputs = vary((params, inputs))
    taped = tape(predict, params, inputs)
    outputs, seen, slopes = linearise(taped, params, inputs)

    def pull(cotangents: Any) -> Gradients:
        return _assemble(taped, params, len(outputs), seen, slopes(cotangents))

    return PerExample(taped, outputs, pull)


@automatic
def loss_gradients(
    objective: Objective, params: Params, batch: Batch
) -> tuple[Tape, Gradients]:
    """Gradients of each example's loss, weights and ``l2`` left out.

    Examples of weight zero must already hold harmless values.
    """
    linear = per_example(objective.predict, params, batch.inputs)
    slopes = output_slopes(objective, linear.outputs, batch.targets)
    return linear.tape, linear.pull(slopes)


def output_slopes(objective: Objective, outputs: Any, targets: Any) -> Any:
    """∂ℓₙ/∂outputsₙ for all examples."""
    return jax.grad(lambda out: jnp.sum(objective.loss(out, targets)))(outputs)


def block_size(taped: Tape, examples: int) -> int:
    """How many examples to take at once.

    On CPU as many as keep the factors within some megabytes, where they stay in the
    cache: few where a layer has several positions, since there they are read as often
    as it has outputs; elsewhere within a gigabyte.
    """
    budget = DEVICE_BYTES
    if target_platform() == "cpu":
        near = min(SECOND_CACHES * second_cache_bytes(), POSITIONS_BYTES)
        budget = near if has_positions(taped) else CACHE_BYTES
    return max(4, min(examples, budget // max(example_bytes(taped), 1)))


def has_positions(taped: Tape) -> bool:
    """Whether any layer's gradient is a sum over positions."""

    def many(site: Site) -> bool:
        if not isinstance(site.layout, Layout):
            return False
        groups, _, given = shape_after(site.layout.steps, site.layout.shape)
        return site.shape.size > groups * given

    return any(map(many, taped.sites))


def example_bytes(taped: Tape) -> int:
    """Bytes that the inputs and slopes of one example take."""
    total = 0
    shapes = parameter_shapes(taped)
    for leaf, sites in enumerate(sites_of(taped)):
        if factored_site(sites) is None:
            total += shapes[leaf].size * shapes[leaf].dtype.itemsize
    for site in taped.sites:
        count = site.shape.size
        if isinstance(site.layout, Layout):
            # (g, t, o) slopes, and (g, t, i) inputs.
            _, taken, given = shape_after(site.layout.steps, site.layout.shape)
            count += count * taken // max(given, 1)
        total += count * site.shape.dtype.itemsize
    return total


def parameter_shapes(taped: Tape) -> list[jax.ShapeDtypeStruct]:
    """Shape and dtype of each leaf of the parameters."""
    numbers = taped.program.inputs[: taped.structure.num_leaves]
    return [taped.program.shapes[number] for number in numbers]


def sites_of(taped: Tape) -> list[list[Site]]:
    """For each leaf of the parameters, the sites that it reaches."""
    count = taped.structure.num_leaves
    return [[s for s in taped.sites if leaf in s.leaves] for leaf in range(count)]


def factored_site(sites: list[Site]) -> Site | None:
    """The only site of a parameter, if its gradients stay factored there."""
    if len(sites) != 1 or sites[0].steps is None or sites[0].kind == "whole":
        return None
    # A real weight in a complex product: only the real part is its gradient.
    if jnp.issubdtype(sites[0].shape.dtype, jnp.complexfloating):
        return None
    return sites[0]


def formed_whole(taped: Tape) -> tuple[Path, ...]:
    """Paths of the matrices and tables whose gradients do not stay factored.

    Vectors (biases, scales) are always formed; they are small. What is listed here
    costs its own size for each example of a block: a weight used in several places, or
    in an operation that is no product.
    """
    leaves = parameter_shapes(taped)
    paths = jax.tree_util.tree_leaves_with_path(
        jax.tree.unflatten(taped.structure, leaves)
    )
    return tuple(
        path_names(path)
        for (path, like), sites in zip(paths, sites_of(taped), strict=True)
        if len(like.shape) > 1 and sites and factored_site(sites) is None
    )


def to_form(taped: Tape, leaf: int, value: Any) -> Any:
    """A tensor like a factored parameter, in the form (g, i, o) or (v, *row)."""
    return forward(_steps(taped, leaf), value)


def from_form(taped: Tape, leaf: int, value: Any) -> Any:
    """The inverse of :func:`to_form`."""
    shape = taped.program.shapes[taped.program.inputs[leaf]].shape
    return backward(_steps(taped, leaf), shape, value)


def _steps(taped: Tape, leaf: int) -> Steps:
    (site,) = sites_of(taped)[leaf]
    if site.steps is None:
        raise AssertionError("only a factored parameter has a form")
    return site.steps


def _assemble(
    taped: Tape, params: Params, n: int, seen: list[Any], slopes: list[Any]
) -> Gradients:
    """Sort what was read at the sites by parameter."""
    leaves = jax.tree.leaves(params)
    by_site = dict(zip(taped.sites, range(len(taped.sites)), strict=True))
    reached = sites_of(taped)
    gradients: list[Any] = []
    for leaf, sites in enumerate(reached):
        site = factored_site(sites)
        if site is None:
            gradients.append(None)
            continue
        at, dtype = by_site[site], leaves[leaf].dtype
        # In the parameter's dtype, so that sums over examples are too.
        own = slopes[at].astype(dtype) * _scale(taped, leaves, leaf, site)
        if site.kind == "product":
            gradients.append(Outer(seen[at].astype(dtype), own))
        else:
            gradients.append(Rows(seen[at].reshape(n, -1), own))
    formed = [leaf for leaf, gradient in enumerate(gradients) if gradient is None]
    totals = {
        leaf: jnp.zeros((n, *leaves[leaf].shape), leaves[leaf].dtype) for leaf in formed
    }
    for at, site in enumerate(taped.sites):
        own = [leaf for leaf in site.leaves if leaf in totals]
        if own:
            whole = _operand_gradients(site, seen[at], slopes[at])
            for leaf, part in _pull_operand(taped, leaves, site, own, whole).items():
                totals[leaf] += part
    return tuple(
        Whole(totals[leaf]) if gradient is None else gradient
        for leaf, gradient in enumerate(gradients)
    )


def _scale(taped: Tape, leaves: list[Any], leaf: int, site: Site) -> Any:
    """The number that a parameter is multiplied by on its way to its site."""
    like = leaves[leaf]
    if not site.scaled or like.size == 1 or not like.size:
        return jnp.ones((), like.dtype)
    ones = [jnp.ones_like(x) if at == leaf else x for at, x in enumerate(leaves)]
    (operand,) = weights_at(taped, ones, [site])
    return operand.ravel()[0].astype(like.dtype)


def _operand_gradients(site: Site, seen: Any, slopes: Any) -> Any:
    """Each example's gradient with respect to the operand of a site."""
    if isinstance(site.layout, Layout):
        formed = jnp.einsum("ngti,ngto->ngio", seen, slopes, precision=summed())
        return jax.vmap(site.layout.unweight)(formed)
    if isinstance(site.layout, Lookup):
        layout = site.layout

        def fill(rows: Any, values: Any) -> Any:
            empty = jnp.zeros((layout.rows, *layout.row), values.dtype)
            return layout.unweight(empty.at[rows].add(values, mode="drop"))

        return jax.vmap(fill)(seen.reshape(len(seen), -1), slopes)
    return slopes


def _pull_operand(
    taped: Tape, leaves: list[Any], site: Site, own: list[int], gradients: Any
) -> dict[int, Any]:
    """From gradients of an operand to those of the parameters it is computed from."""

    def operand(chosen: dict[int, Any]) -> Any:
        replaced = [chosen.get(leaf, value) for leaf, value in enumerate(leaves)]
        return weights_at(taped, replaced, [site])[0]

    like, back = jax.vjp(operand, {leaf: leaves[leaf] for leaf in own})
    if not jnp.issubdtype(like.dtype, jnp.complexfloating):
        gradients = jnp.real(gradients)
    return jax.vmap(lambda g: back(g)[0])(gradients.astype(like.dtype))
