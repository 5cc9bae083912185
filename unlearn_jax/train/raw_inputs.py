"""Whether a model multiplies its inputs with weights as they are.

Integers that are looked up or compared are tokens; integers that meet a matrix product
unscaled are images somebody forgot to convert.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

_MOVED = frozenset(
    "reshape transpose squeeze broadcast_in_dim expand_dims convert_element_type copy "
    "slice dynamic_slice pad concatenate rev split gather optimization_barrier".split()
)
"""What leaves the numbers as they are; in all of them the data come first."""

_PRODUCTS = ("dot_general", "conv_general_dilated")


def multiplies_raw(
    predict: Callable[[Any, Any], Any], params: Any, inputs: Any
) -> bool:
    """Whether a whole number of ``inputs`` meets a product or convolution unscaled.

    Floating-point leaves beside it, the images of a denoiser with times and words, may.

    Args:
        predict: ``(params, inputs) -> outputs``.
        params: Arrays or their shapes.
        inputs: Arrays or their shapes.

    Cost: traces ``predict`` once.
    """
    closed = jax.make_jaxpr(predict)(params, inputs)
    count = len(jax.tree.leaves(inputs))
    variables = closed.jaxpr.invars
    given = variables[len(variables) - count :]
    whole = {v for v in given if jnp.issubdtype(v.aval.dtype, jnp.integer)}
    return _meets(closed.jaxpr, whole)[0]


def _meets(jaxpr: jex_core.Jaxpr, raw: set[Any]) -> tuple[bool, list[bool]]:
    """Whether a product is met, and which results are still raw."""
    for equation in jaxpr.eqns:
        held = [
            not isinstance(v, jex_core.Literal) and v in raw for v in equation.invars
        ]
        if not any(held):
            continue
        name = equation.primitive.name
        if name in _PRODUCTS:
            return True, []
        if name in _MOVED and (held[0] or name == "concatenate"):
            raw |= set(equation.outvars)
            continue
        inner = _inner(equation)
        if inner is not None:
            met, out = _meets(
                inner,
                {v for v, h in zip(inner.invars, held, strict=True) if h},
            )
            if met:
                return True, []
            pairs = zip(equation.outvars, out, strict=False)
            raw |= {variable for variable, still in pairs if still}
    return False, [
        not isinstance(v, jex_core.Literal) and v in raw for v in jaxpr.outvars
    ]


def _inner(equation: Any) -> jex_core.Jaxpr | None:
    """The program that an equation calls with its own operands, if it is one."""
    for value in equation.params.values():
        if isinstance(value, jex_core.ClosedJaxpr):
            value = value.jaxpr
        if isinstance(value, jex_core.Jaxpr):
            return value if len(value.invars) == len(equation.invars) else None
    return None
