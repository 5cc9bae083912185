"""Derivative of the outputs by the parameters: its products, and the tangent kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from unlearn_jax.curvature import jax_forms
from unlearn_jax.curvature.operator import LinearOperator, linear_operator
from unlearn_jax.data.accumulate import collect
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import entered_inputs
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Inputs, Outputs, Params
from unlearn_kernels.varying import vary


@automatic
def jacobian_product(
    objective: Objective, params: Params, inputs: Inputs
) -> tuple[Outputs, Callable[[Any], Any], Callable[[Any], Any]]:
    """The outputs and both products with J = ∂ outputs / ∂ params, linearised once.

    Args:
        objective: Only ``predict`` is used.
        params: Where the derivative is taken.
        inputs: Examples, shape (n, ...).

    Returns:
        ``(outputs, jvp, vjp)``: ``jvp`` takes a tree like ``params`` to J v, shaped
        like the outputs; ``vjp`` takes that shape to Jᵀ u, a tree like ``params``. Of
        complex numbers J is a real matrix on real and imaginary parts, and Jᵀ its
        transpose.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells.

    Cost: one forward pass whose intermediates are kept; then each product costs about
        two forward passes of linear work and nothing nonlinear is computed again.
    """
    predict = objective.predict
    params, inputs = entered_inputs("jacobian_product", predict, params, inputs)
    outputs, jvp, transpose = linear_part(lambda p: predict(p, inputs), params)

    def vjp(cotangent: Any) -> Any:
        return jax.tree.map(jnp.conj, transpose(jnp.conj(cotangent)))

    return outputs, jvp, vjp


def linear_part(
    function: Callable[[Any], Any], at: Any
) -> tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]:
    """A function's value, its derivative as a linear map, and the transpose of that.

    Where a rule of the function (``jax.custom_vjp``) knows the way back alone, the way
    forth is the transpose of it.
    """
    value, push = jax.linearize(function, at)
    transpose = jax.linear_transpose(push, at)

    def back(cotangent: Any) -> Any:
        return transpose(cotangent)[0]

    if not jax_forms.only_transposes(jax.make_jaxpr(push)(at)):
        return value, push, back
    forth = jax.linear_transpose(back, value)
    return value, lambda tangent: forth(tangent)[0], back


@automatic
def tangent_kernel(
    objective: Objective,
    params: Params,
    inputs_a: Inputs,
    inputs_b: Shaped[Array | np.ndarray, "m ..."] | None = None,
    *,
    batch_size: int = 8,
    trace: bool = False,
) -> Array:
    """Inner products of output gradients between two sets of examples.

    K[i, j, c, d] = ⟨∂ outputs_c(aᵢ)/∂θ, ∂ outputs_d(bⱼ)/∂θ⟩, the empirical neural
    tangent kernel at these parameters.

    Args:
        objective: Only ``predict`` is used.
        params: Where the derivative is taken.
        inputs_a: n examples.
        inputs_b: m examples; None takes ``inputs_a``.
        batch_size: Examples of ``inputs_b`` whose output gradients are held at once.
        trace: Return Σ_c K[i, j, c, c], shape (n, m).

    Returns:
        Shape (n, m, k, k), where k counts all outputs of one example (tokens times
        classes for sequences); or (n, m) if ``trace``.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells.

    Cost: m·k backward passes over one example and m·k linear forward passes over the n
        examples, one after another where an operation cannot be mapped by ``vmap``;
        memory batch_size · k · parameters and n · batch_size · k². Never
        n × parameters.
    Source: Jacot et al. 2018, arXiv 1806.07572. Differs: computed from products in
        both directions, never from two dense Jacobians.
    """
    inputs_b = inputs_a if inputs_b is None else inputs_b
    what, predict = "tangent_kernel", objective.predict
    params, inputs_a = entered_inputs(what, predict, params, inputs_a)
    params, inputs_b = entered_inputs(what, predict, params, inputs_b)

    def columns(block: Any, at: Params, rows: Any) -> Array:
        outputs, push, _ = linear_part(lambda p: objective.predict(p, rows), at)
        n, k = outputs.shape[0], outputs[0].size

        def one_example(example: Array) -> Array:
            own, _, pull = jacobian_product(objective, at, example[None])
            basis = vary(jnp.eye(k, dtype=own.dtype).reshape(k, *own.shape), own)
            images = _mapped(lambda u: push(pull(u)), basis)  # (d, n, …)
            if trace:
                return jnp.einsum("cnc->n", images.reshape(k, n, k))
            return jnp.moveaxis(images.reshape(k, n, k), 0, -1)

        return _mapped(one_example, block)

    kernel = collect(columns, inputs_b, params, inputs_a, batch_size=batch_size)
    return jnp.swapaxes(kernel, 0, 1)


@automatic
def tangent_kernel_operator(
    objective: Objective, params: Params, inputs: Inputs
) -> LinearOperator:
    """J Jᵀ as a map on outputs: the tangent kernel without its entries.

    Args:
        objective: Only ``predict`` is used.
        params: Where the derivative is taken.
        inputs: Examples.

    Returns:
        Operator on arrays shaped like the outputs; weights and ``l2`` play no part.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells.

    Cost: one forward pass, then about four forward passes of linear work per product.
    """
    what, predict = "tangent_kernel_operator", objective.predict
    params, inputs = entered_inputs(what, predict, params, inputs)
    outputs, jvp, vjp = jacobian_product(objective, params, inputs)
    return linear_operator(lambda cotangent: jvp(vjp(cotangent)), outputs)


def _mapped(function: Callable[[Array], Array], rows: Array) -> Array:
    try:
        return jax.vmap(function)(rows)
    except NotImplementedError:  # A primitive that cannot be mapped: one by one.
        return jax.lax.map(function, rows)
