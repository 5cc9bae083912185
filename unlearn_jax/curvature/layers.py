"""The layers of a model, in the order in which its inputs pass them."""

from collections.abc import Callable
from typing import Any

import jax

from unlearn_jax.curvature.program import DATA, PARAMETER, Known, Program, flatten
from unlearn_jax.types import Variables


def layers_of(
    apply: Callable[[Variables, Any], Any], variables: Variables, inputs: Any
) -> Variables:
    """The number of the layer that every leaf of a model belongs to.

    A layer begins where inputs, or what was computed from them, meet an array of two
    or more axes (a kernel, a table), and ends where they meet the next: biases, norms
    and their batch statistics belong to the kernel before them, what comes before the
    first kernel to the first layer. An array that is used twice counts where it is
    used first; a scan over layers is one layer.

    Args:
        apply: ``(variables, inputs) -> outputs``, in evaluation mode.
        variables: Of the model; arrays or their shapes.
        inputs: The same, with any number of examples.

    Returns:
        Tree like ``variables`` of whole numbers from 0, the first layer; -1 on a leaf
        that the outputs do not depend on.

    Cost: one tracing of the model; nothing is computed.
    """
    like = jax.eval_shape(lambda *given: given, variables, inputs)
    held, examples = (len(jax.tree.leaves(part)) for part in like)
    closed = jax.make_jaxpr(apply)(*like)
    program = flatten(closed, [PARAMETER] * held + [DATA] * examples)
    number = [-1] * held
    layer = -1
    for met in _meetings(program, held):
        new = [leaf for leaf in met if number[leaf] < 0]
        if any(len(program.shapes[program.inputs[leaf]].shape) > 1 for leaf in new):
            layer += 1
        for leaf in new:
            number[leaf] = max(layer, 0)
    return jax.tree.unflatten(jax.tree.structure(variables), number)


def _meetings(program: Program, held: int) -> list[list[int]]:
    """The leaves that meet data, operation by operation."""
    sources = {number: {leaf} for leaf, number in enumerate(program.inputs[:held])}
    data = set(program.inputs[held:])
    found = []
    for operation in program.operations:
        operands = {x for x in operation.inputs if not isinstance(x, Known)}
        own = set().union(*(sources.get(x, set()) for x in operands))
        if operands & data:
            found.append(sorted(own))
            data.update(operation.outputs)
        else:
            sources.update(dict.fromkeys(operation.outputs, own))
    return found
