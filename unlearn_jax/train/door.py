"""The one entrance: what parameters, a batch, outputs and losses must look like.

A batch's inputs and targets are pytrees of arrays with one common first axis, the
examples. ``predict`` returns one array with that first axis, the loss one number for
each example. All that is told from shapes, also while tracing. Where the numbers are
known, one pass over them finds NaN and labels out of range, and two small forward
passes find examples that depend on one another.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data.accumulate import present, widened
from unlearn_jax.loop import tracing
from unlearn_jax.train.entrance import check_batch
from unlearn_jax.train.loss import squared_norm
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Inputs, Params, Variables
from unlearn_kernels.varying import vary

PROBED = 3
"""Examples of the forward pass that is compared with one example alone."""


def entered(
    what: str,
    objective: Objective,
    params: Any,
    batch: Batch,
    *,
    loss: bool = True,
    alone: bool = False,
) -> tuple[Params, Batch]:
    """Parameters and batch as every function may take them, or a refusal.

    Args:
        what: The public function that was called, for the sentence.
        objective: Its ``predict``, and its ``loss``, are traced with two and three
            examples; remembered by JAX for the same functions and shapes.
        params: Floating-point or complex arrays; Python floats become arrays.
        batch: n ≥ 1 examples.
        loss: Whether the loss will be read.
        alone: Whether examples must not depend on one another. Probed with three
            examples where all numbers are known; under ``jit`` nothing is probed.

    Returns:
        (params, batch): arrays; weights in at least float32. Inside a ``shard_map``
        that checks what varies, parameters that do not vary like the batch do so from
        here on: else JAX would sum derivatives over the devices, before they are
        squared. So every device has what its own part gives; sums are the caller's.

    Raises:
        ValueError: what was given, what was expected, what to change; concrete values
            that are NaN, or labels out of range, are told with their row.
    """
    params = checked_params(what, params)
    batch = checked_batch(what, batch)
    params, batch = vary((params, batch))
    reads = objective.loss if loss else squared_norm
    check_batch(objective.predict, params, reads, batch, name=what)
    for count in (2, 3):
        check_outputs(what, objective.predict, params, batch.inputs, count)
    if loss:
        check_losses(what, objective, params, batch)
    if alone:
        _check_alone(what, objective.predict, params, batch)
    return params, batch


def checked_params(what: str, params: Any) -> Params:
    """The parameters as arrays.

    Raises:
        ValueError: ``Variables``, no leaf at all, or a leaf that cannot be
            differentiated.
    """
    if isinstance(params, Variables):
        raise ValueError(
            f"{what} got Variables as parameters, expected the tree of what is "
            f"differentiated: give variables.params, and the objective their stats"
        )
    if not jax.tree.leaves(params):
        raise ValueError(
            f"{what} got parameters without any array, expected at least one: give "
            f"what the objective is differentiated by"
        )

    def array(path: Any, leaf: Any) -> Array:
        try:
            dtype = jnp.result_type(leaf)
        except (TypeError, ValueError):
            dtype = type(leaf).__name__
        if not isinstance(dtype, np.dtype) or not jnp.issubdtype(dtype, jnp.inexact):
            raise ValueError(
                f"{what} got {dtype} at {jax.tree_util.keystr(path) or 'its only leaf'}"
                f" of the parameters, expected floating-point or complex arrays: what "
                f"has no derivative (counters, masks) goes into the closure of predict"
            )
        return jnp.asarray(leaf)

    return jax.tree_util.tree_map_with_path(array, params)


def entered_inputs(
    what: str, predict: Any, params: Any, inputs: Inputs
) -> tuple[Params, Inputs]:
    """:func:`entered` where outputs alone are asked for.

    Raises:
        ValueError: as :func:`entered` for parameters, inputs and outputs.
    """
    params = checked_params(what, params)
    _check_some(what, examples(what, "inputs", inputs))
    params, inputs = vary((params, inputs))
    for count in (2, 3):
        check_outputs(what, predict, params, inputs, count)
    return params, inputs


def check_real(what: str, params: Any) -> None:
    """Refuse complex parameters where a quantity has no meaning for them.

    Raises:
        ValueError: names the first complex leaf.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
            raise ValueError(
                f"{what} got {jnp.result_type(leaf)} at "
                f"{jax.tree_util.keystr(path) or 'its only leaf'} of the parameters, "
                f"expected real numbers: keep the real and the "
                f"imaginary part as two parameters"
            )


def checked_batch(what: str, batch: Batch) -> Batch:
    """The batch with weights in at least float32.

    Raises:
        ValueError: no example, leaves without a common first axis, or weights that are
            not one real number for each example.
    """
    count = examples(what, "inputs", batch.inputs)
    weights = jnp.asarray(batch.weights)
    for field, given in (("targets", batch.targets), ("weights", weights)):
        found = examples(what, field, given)
        if found != count:
            raise ValueError(
                f"{what} got {count} examples in the inputs and {found} in the "
                f"{field}, expected the same number: drop those that lack a partner"
            )
    _check_some(what, count)
    real = jnp.issubdtype(weights.dtype, jnp.floating)
    integer = jnp.issubdtype(weights.dtype, jnp.integer)
    if weights.ndim != 1 or not (real or integer or weights.dtype == bool):
        raise ValueError(
            f"{what} got weights {weights.dtype}{list(weights.shape)}, expected one "
            f"real number for each of {count} examples: give shape ({count},)"
        )
    return batch._replace(weights=widened(weights))


def seen(objective: Objective, params: Params, batch: Batch) -> Batch:
    """The batch with a stand-in for each example of weight zero that is unusable.

    Unusable are numbers whose squares overflow, NaN, padding (zeros throughout) and
    targets of which the loss cannot tell a value. Other examples of weight zero stay:
    they count nothing, but the derivative by their weight is their own.

    Cost: one pass over the batch, and the loss at outputs of zero.
    """
    batch = jax.tree.map(jnp.asarray, batch)
    count = len(batch.weights)
    like = check_outputs("a batch", objective.predict, params, batch.inputs, 2)
    # Behind a barrier: XLA would compute a loss of constants while it compiles, which
    # for tokens of a large vocabulary takes minutes.
    zero = jax.lax.optimization_barrier(jnp.zeros((), like.dtype))
    blank = jnp.broadcast_to(zero, (count, *like.shape[1:]))
    usable = jnp.isfinite(objective.loss(blank, batch.targets))
    filled = jnp.zeros(count, bool)
    for leaf in jax.tree.leaves((batch.inputs, batch.targets)):
        flat = leaf.reshape(count, -1)
        filled |= jnp.any(flat != 0, axis=1)
        if jnp.issubdtype(flat.dtype, jnp.inexact):
            limit = float(jnp.finfo(flat.dtype).max) ** 0.5
            usable &= jnp.all(jnp.abs(flat) < limit, axis=1)
    return present(batch, usable & filled)


def _check_some(what: str, count: int) -> None:
    if not count:
        raise ValueError(
            f"{what} got no example at all (n = 0), expected at least one: check what "
            f"the examples were selected by"
        )


def examples(what: str, field: str, tree: Any) -> int:
    """Length of the first axis that all leaves share.

    Raises:
        ValueError: there is no such axis.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            f"{what} got {field} of shapes {shapes}, expected arrays with one common "
            f"first axis that runs over the examples: reshape or stack them"
        )
    return lengths.pop()[0]


def check_outputs(
    what: str, predict: Any, params: Any, inputs: Inputs, count: int
) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the outputs for so many examples, from shapes alone.

    Raises:
        ValueError: more than one array, or a first axis that is not the examples'.
    """
    some = _like(inputs, count)
    outputs = jax.eval_shape(predict, params, some)
    single = isinstance(outputs, jax.ShapeDtypeStruct)
    if single and outputs.shape[:1] == (count,):
        if not jnp.issubdtype(outputs.dtype, jnp.inexact):
            raise ValueError(
                f"{what}: predict returns {outputs.dtype}, expected floating-point or "
                f"complex outputs: return what can be differentiated"
            )
        return jax.ShapeDtypeStruct(outputs.shape, outputs.dtype)
    given = (
        f"an array {outputs.shape}"
        if single
        else f"a {type(outputs).__name__} of {len(jax.tree.leaves(outputs))} arrays"
    )
    raise ValueError(
        f"{what}: predict returns {given} for {count} examples, expected one array "
        f"whose first axis has length {count}: return the outputs that the loss reads, "
        f"examples first, and nothing else"
    )


def check_losses(what: str, objective: Objective, params: Any, batch: Batch) -> None:
    """Refuse a loss that is not one real number for each example, from shapes alone.

    Raises:
        ValueError: what the loss returns.
    """
    count = 2
    outputs = check_outputs(what, objective.predict, params, batch.inputs, count)
    losses = jax.eval_shape(objective.loss, outputs, _like(batch.targets, count))
    single = isinstance(losses, jax.ShapeDtypeStruct)
    if not single or losses.shape != (count,):
        given = losses.shape if single else type(losses).__name__
        raise ValueError(
            f"{what}: the loss returns {given} for {count} examples, expected one "
            f"value for each, shape ({count},): leave the mean over examples out"
        )
    if not jnp.issubdtype(losses.dtype, jnp.floating):
        raise ValueError(
            f"{what}: the loss returns {losses.dtype}, expected real floating-point "
            f"numbers: take the real part, or a loss that has a derivative"
        )


def _check_alone(what: str, predict: Any, params: Params, batch: Batch) -> None:
    """Compare an example among others with the same example alone."""
    if tracing(params, batch):
        return
    there = np.flatnonzero(np.asarray(batch.weights))[:PROBED]
    if len(there) < 2:
        return
    some = jax.tree.map(lambda leaf: leaf[there], batch.inputs)
    first = jax.tree.map(lambda leaf: leaf[:1], some)
    run = jax.jit(predict)
    among, alone = (np.asarray(run(params, x)[0]) for x in (some, first))
    if not (np.all(np.isfinite(among)) and np.all(np.isfinite(alone))):
        return
    apart, size = (float(np.max(np.abs(x), initial=0)) for x in (among - alone, among))
    size = max(size, float(np.max(np.abs(alone), initial=0)))
    # Other shapes are rounded in another order, on accelerators coarsely.
    share = min(30 * float(jnp.finfo(among.dtype).eps) ** 0.5, 0.25)
    if apart > share * size:
        raise ValueError(
            f"{what}: the outputs of an example change by {apart / size:.2g} of their "
            f"size with the examples beside it, expected examples that do not depend "
            f"on one another: put batch normalisation into evaluation mode"
        )


def _like(tree: Any, count: int) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (count, *jnp.shape(leaf)[1:]), jnp.result_type(leaf)
        ),
        tree,
    )
