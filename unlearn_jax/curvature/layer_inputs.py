"""What a layer reads: the inputs of one kernel's product, at every position."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.curvature.per_example import Outer, per_example
from unlearn_jax.types import Array, Params


class LayerInputs(NamedTuple):
    """Value: a layer's keys, and how its results reach the outputs.

    Attributes:
        keys: What the kernel is multiplied with.
        outputs: Of ``predict``.
        slopes: Gradient of the sum of the outputs by the results of the product: ones
            where these are added to the outputs as they are.
    """

    keys: Float[Array, "n t i"]
    outputs: Float[Array, "n ..."]
    slopes: Float[Array, "n t o"]


def kernel_at(params: Params, layer: str) -> tuple[int, Array]:
    """Number among the leaves, and the kernel, at a path such as "hidden/kernel".

    Raises:
        ValueError: there is none there, or it is no matrix.
    """
    found = jax.tree_util.tree_leaves_with_path(params)
    names = ["/".join(map(str, tree.path_names(path))) for path, _ in found]
    pairs = zip(names, found, strict=True)
    matrices = [name for name, (_, leaf) in pairs if leaf.ndim == 2]
    if layer not in matrices:
        raise ValueError(
            f"there is no kernel of two axes at {layer!r}; choose from "
            f"{', '.join(matrices)}"
        )
    number = names.index(layer)
    return number, found[number][1]


def layer_inputs(
    predict: Callable[[Any, Any], Any], params: Params, inputs: Any, layer: str
) -> LayerInputs:
    """The keys of a layer on a batch.

    Args:
        predict: ``(params, inputs) -> outputs`` in evaluation mode.
        params: Where.
        inputs: (n, …).
        layer: Path of the kernel, "blocks/3/down/kernel".

    Raises:
        ValueError: no such kernel, or it is not used in a single product.

    Cost: a forward and a backward pass.
    """
    number, _ = kernel_at(params, layer)
    linear = per_example(predict, params, inputs)
    found = linear.pull(jnp.ones_like(linear.outputs))[number]
    if not isinstance(found, Outer) or found.inputs.shape[1] != 1:
        raise ValueError(
            f"{layer} is not used in one product of its own, so that it has no inputs "
            "of its own; choose the kernel of a dense layer that is used once"
        )
    return LayerInputs(found.inputs[:, 0], linear.outputs, found.slopes[:, 0])
