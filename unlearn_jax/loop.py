"""One place that decides where an iteration runs: in the compiled program or outside.

On CPU, XLA computes a convolution inside ``while`` or ``scan`` with a naive kernel,
some 35 times slower than outside (JAX issue 12868). The convolutions here avoid
it (patches and one matrix product, ``unlearn_kernels.convolution``), so everything here
runs as one compiled loop on every device. A foreign model with raw convolutions on CPU
is detected and its loops run on the host instead, around a compiled body.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core as jex_core

from unlearn_kernels.target import target_platform
from unlearn_kernels.varying import vary

Loop: TypeAlias = Literal["auto", "device", "host"]


def repeat(
    count: Any,
    body: Callable[[Any, Any, Any], Any],
    state: Any,
    constants: Any = None,
    *,
    loop: Loop = "device",
) -> Any:
    """Apply ``state = body(i, state, constants)`` for i = 0 .. count - 1.

    Args:
        count: Number of steps; may be traced when ``loop`` is "device".
        body: Pure function of the step, the state and the constants. On the host it is
            compiled once per function object: define it outside of the caller's loop.
        state: Pytree carried along.
        constants: Arrays that the body reads; numpy arrays become JAX arrays once.
            Never capture arrays in a closure here: they would be folded into the
            program as constants.
        loop: "device" for one compiled loop, "host" for a Python loop around the
            compiled body. "auto" is resolved by :func:`choose_loop`.

    Raises:
        ValueError: "host" inside of a transformation (jit, vmap, grad).
    """
    constants = _to_device(constants)
    if loop != "host":
        state, low = vary((state, 0), constants, count)
        return jax.lax.fori_loop(low, count, lambda i, s: body(i, s, constants), state)
    if isinstance(count, Tracer) or tracing(state, constants):
        raise ValueError(
            "loop='host' was asked for inside jit, vmap or grad, where only "
            "loop='device' can run; call the function without the transformation"
        )
    step = jax.jit(body)
    for i in range(int(count)):
        state = step(i, state, constants)
    return state


def rounds(
    count: int,
    body: Callable[[Any, Any, Any], Any],
    state: Any,
    constants: Any = None,
    *,
    loop: Loop = "device",
) -> Any:
    """:func:`repeat` for a body that itself holds loops.

    On the host the body is called as it is, so that the loops inside it can run on the
    host too.
    """
    if loop != "host":
        return repeat(count, body, state, constants)
    constants = _to_device(constants)
    for i in range(count):
        state = body(i, state, constants)
    return state


def while_loop(
    go_on: Callable[[Any], Any], step: Callable[[Any], Any], state: Any, *like: Any
) -> Any:
    """``jax.lax.while_loop`` whose whole state varies alike, see ``placement``.

    Args:
        go_on: Whether to take another step.
        step: From a state to the next.
        state: The first.
        like: What else ``step`` reads that may vary over a mesh.
    """
    return jax.lax.while_loop(go_on, step, vary(state, like))


def fori_loop(
    low: Any, high: Any, step: Callable[[Any, Any], Any], state: Any, *like: Any
) -> Any:
    """``jax.lax.fori_loop``, as :func:`while_loop`."""
    return jax.lax.fori_loop(low, high, step, vary(state, like))


def scan(
    step: Callable[[Any, Any], Any], carry: Any, rows: Any, *like: Any, **options: Any
) -> Any:
    """``jax.lax.scan`` whose carry varies like the rows too, as :func:`while_loop`."""
    return jax.lax.scan(step, vary(carry, rows, like), rows, **options)


def choose_loop(loop: Loop, function: Callable[..., Any], *arguments: Any) -> Loop:
    """Resolve "auto": "host" for raw convolutions on CPU, else "device".

    Inside a transformation the answer is "device", since nothing else can run there.
    """
    if loop != "auto":
        return loop
    if target_platform() != "cpu" or tracing(arguments):
        return "device"
    return "host" if uses_convolution(function, *arguments) else "device"


def uses_convolution(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether tracing ``function(*arguments)`` meets XLA's convolution anywhere."""
    return _has_convolution(jax.make_jaxpr(function)(*arguments).jaxpr)


def tracing(*trees: Any) -> bool:
    """Whether any leaf is being traced by a JAX transformation."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def _to_device(constants: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf,
        constants,
    )


def _has_convolution(jaxpr: jex_core.Jaxpr) -> bool:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            return True
        for value in jax.tree.leaves(
            equation.params,
            is_leaf=lambda x: isinstance(x, jex_core.Jaxpr | jex_core.ClosedJaxpr),
        ):
            inner = value.jaxpr if isinstance(value, jex_core.ClosedJaxpr) else value
            if isinstance(inner, jex_core.Jaxpr) and _has_convolution(inner):
                return True
    return False
