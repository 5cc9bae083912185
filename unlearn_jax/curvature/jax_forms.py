"""All that tapping knows of JAX's own forms: primitives and how their parameters read.

Names and parameters of primitives are no public interface: a release may move them.
Every reader returns None for a form that is not the one known here, parameters that it
has never seen included. What is not read stays an operation like any other, whose
operands get gradients of their own: slower, and right. Counts are taken from shapes
wherever shapes tell them, as the constants and carries of a scan.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.extend import core as jex_core

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
}
"""Calls that are inlined, and the parameter that holds the program called."""


_COUNTS = (
    "num_consts",
    "num_carry",
    "linear",
    "_split_transpose",
    "ft_in",
    "ft_out",
)
_CONVOLUTION = (
    "dimension_numbers",
    "feature_group_count",
    "batch_group_count",
    "window_strides",
    "padding",
    "lhs_dilation",
    "rhs_dilation",
)
_CAST = ("new_dtype", "weak_type", "sharding")
_SIZES = ("new_sizes", "sharding")
_SPREAD = ("shape", "sharding")


class Inner(NamedTuple):
    """Description: a program inside of an equation."""

    jaxpr: Any
    consts: Sequence[Any]


class Product(NamedTuple):
    """Description: a ``dot_general``; axes as (of the left, of the right operand)."""

    contract: tuple[Sequence[int], Sequence[int]]
    batch: tuple[Sequence[int], Sequence[int]]
    precision: Any
    preferred: Any


class Convolution(NamedTuple):
    """Description: a convolution whose kernel is the second operand.

    Attributes:
        images: Axes of the images: batch, channels, then space.
        kernel: Axes of the kernel: channels out, channels in, then space.
        results: Axes of the results: batch, channels, then space.
        groups: Of the channels.
        strides: In space.
        padding: Pairs, before and after.
        spread: Dilation of the images (transposed convolutions).
        apart: Dilation of the kernel.
    """

    images: Sequence[int]
    kernel: Sequence[int]
    results: Sequence[int]
    groups: int
    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    spread: Sequence[int]
    apart: Sequence[int]


class Gather(NamedTuple):
    """Description: windows of a table, at starts that the last axis of indices holds.

    Attributes:
        offset: Axes of the result that run through a window.
        collapsed: Axes of the table, of window size one, that the result lacks.
        axes: Axis of the table that each entry of a start belongs to.
        sizes: Of a window.
        clip: Starts out of range are moved into it; else such windows read nothing.
        promised: The program promises that no start is out of range.
    """

    offset: tuple[int, ...]
    collapsed: tuple[int, ...]
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    clip: bool
    promised: bool


class Scan(NamedTuple):
    """Description: a loop over rows; operands are constants, then carries, then rows.

    Attributes:
        body: The program of one step.
        consts: How many operands every step reads.
        carries: How many operands a step hands to the next.
        length: Steps.
        reverse: From the last row to the first.
        unroll: Steps in one round of the compiled loop.
    """

    body: Inner
    consts: int
    carries: int
    length: int
    reverse: bool
    unroll: Any


def call(equation: Any) -> Inner | None:
    """The program of a call that can be inlined."""
    inner = open_jaxpr(equation.params.get(CALLS.get(equation.primitive.name)))
    if inner is None or not _fits(equation, inner):
        return None
    return inner


def open_jaxpr(jaxpr: Any) -> Inner | None:
    """A jaxpr, closed or not, with its constants."""
    opened = getattr(jaxpr, "jaxpr", jaxpr)
    if not isinstance(opened, jex_core.Jaxpr):
        return None
    return Inner(opened, tuple(getattr(jaxpr, "consts", ())))


def scan(equation: Any) -> Scan | None:
    """A scan; which operands are which is told by their shapes.

    A row of a step has one axis less than what the scan is given, and an output that is
    carried has as many as the result; counts by name have changed between releases.
    """
    params = _read(
        equation,
        "scan",
        ("jaxpr", "length", "reverse", "unroll"),
        unread=_COUNTS,
    )
    inner = None if params is None else open_jaxpr(params["jaxpr"])
    if params is None or inner is None or not _fits(equation, inner):
        return None
    given = _ranks(equation.invars, inner.jaxpr.invars)
    results = _ranks(equation.outvars, inner.jaxpr.outvars)
    rows, carries = given.count(1), results.count(0)
    consts = len(given) - rows - carries
    known = (
        consts >= 0
        and given == [0] * (consts + carries) + [1] * rows
        and results == [0] * carries + [1] * (len(results) - carries)
    )
    if not known:
        return None
    length, reverse, unroll = (params[key] for key in ("length", "reverse", "unroll"))
    return Scan(inner, consts, carries, length, reverse, unroll)


def product(equation: Any) -> Product | None:
    """A matrix product."""
    params = _read(
        equation,
        "dot_general",
        ("dimension_numbers", "precision", "preferred_element_type"),
        unread=("out_sharding", "out_type"),
    )
    if params is None:
        return None
    contract, batch = params["dimension_numbers"]
    precision, preferred = params["precision"], params["preferred_element_type"]
    return Product(contract, batch, precision, preferred)


def convolution(equation: Any) -> Convolution | None:
    """A convolution without groups of examples."""
    params = _read(
        equation,
        "conv_general_dilated",
        _CONVOLUTION,
        unread=("precision", "preferred_element_type", "out_sharding"),
    )
    if params is None or params["batch_group_count"] != 1:
        return None
    numbers = params["dimension_numbers"]
    return Convolution(
        numbers.lhs_spec,
        numbers.rhs_spec,
        numbers.out_spec,
        params["feature_group_count"],
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
    )


def gather(equation: Any) -> Gather | None:
    """A reading of windows, without batches of tables."""
    params = _read(
        equation,
        "gather",
        ("dimension_numbers", "slice_sizes", "mode"),
        unread=("fill_value", "indices_are_sorted", "unique_indices"),
    )
    if params is None or params["dimension_numbers"].operand_batching_dims:
        return None
    numbers, mode = params["dimension_numbers"], params["mode"]
    return Gather(
        tuple(numbers.offset_dims),
        tuple(numbers.collapsed_slice_dims),
        tuple(numbers.start_index_map),
        tuple(params["slice_sizes"]),
        mode == lax.GatherScatterMode.CLIP,
        mode == lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def rearrangement(
    equation: Any,
) -> tuple[tuple[str, tuple[int, ...]], ...] | None:
    """Steps ("reshape", sizes), ("transpose", order), ("flip", axes) of one operand.

    A cast between floating-point numbers is no step at all.
    """
    if len(equation.invars) != 1 or len(equation.outvars) != 1:
        return None
    source, result = equation.invars[0].aval, equation.outvars[0].aval
    shape = tuple(result.shape)
    if _read(equation, "copy", ()) is not None:
        return ()
    cast = _read(equation, "convert_element_type", (), unread=_CAST)
    if cast is not None and jnp.issubdtype(result.dtype, jnp.floating):
        return ()
    if params := _read(equation, "transpose", ("permutation",)):
        return (("transpose", tuple(params["permutation"])),)
    if params := _read(equation, "rev", ("dimensions",)):
        return (("flip", tuple(params["dimensions"])),)
    if params := _read(equation, "reshape", ("dimensions",), unread=_SIZES):
        order = params["dimensions"]
        first = () if order is None else (("transpose", tuple(order)),)
        return (*first, ("reshape", shape))
    if _read(equation, "squeeze", (), unread=("dimensions",)) is not None:
        return (("reshape", shape),)
    if _read(equation, "expand_dims", (), unread=("dimensions",)) is not None:
        return (("reshape", shape),)
    params = _read(equation, "broadcast_in_dim", ("broadcast_dimensions",), _SPREAD)
    if params and source.size == result.size:
        order = tuple(params["broadcast_dimensions"])
        if order == tuple(sorted(order)):
            return (("reshape", shape),)
    return None


def factors(equation: Any) -> tuple[int, ...]:
    """Operands that the other one may be multiplied or divided by, number by number."""
    if _read(equation, "mul", (), unread=("out_dtype",)) is not None:
        return (0, 1)
    if _read(equation, "div", (), unread=("out_dtype",)) is not None:
        return (1,)
    return ()


def spreads(equation: Any) -> bool:
    """Whether the result holds copies of the only operand."""
    known = _read(
        equation, "broadcast_in_dim", (), unread=("broadcast_dimensions", *_SPREAD)
    )
    return known is not None and len(equation.invars) == 1


def stops_gradient(equation: Any) -> bool:
    """Whether no gradient passes."""
    return equation.primitive.name == "stop_gradient"


def only_transposes(closed: Any) -> bool:
    """Whether a linear program holds a derivative that is known backwards alone.

    ``jax.custom_vjp`` leaves it there: it can be transposed, but not executed.
    """
    return any(
        equation.primitive.name == "custom_lin"
        or any(map(only_transposes, jex_core.jaxprs_in_params(equation.params)))
        for equation in getattr(closed, "jaxpr", closed).eqns
    )


def bind(equation: Any, values: Sequence[Any]) -> list[Any]:
    """Execute an equation as it stood in the traced program."""
    primitive = equation.primitive
    bound = primitive.get_bind_params(equation.params)
    # Older releases of JAX hand out subfunctions apart from the parameters.
    subfunctions, params = bound if isinstance(bound, tuple) else ((), bound)
    # What was set where the model was traced (random bits, precision) holds here too.
    context = getattr(equation, "ctx", None)
    with context.manager if context is not None else contextlib.nullcontext():
        result = primitive.bind(*subfunctions, *values, **params)
    return list(result) if primitive.multiple_results else [result]


def _read(
    equation: Any, name: str, wanted: Sequence[str], unread: Sequence[str] = ()
) -> Mapping[str, Any] | None:
    """The parameters of this primitive; None where one lacks or is not known."""
    params = equation.params
    if equation.primitive.name != name or not set(wanted) <= set(params):
        return None
    return params if set(params) <= {*wanted, *unread} else None


def _fits(equation: Any, inner: Inner) -> bool:
    jaxpr, consts = inner
    return (
        len(jaxpr.invars) == len(equation.invars)
        and len(jaxpr.outvars) == len(equation.outvars)
        and len(jaxpr.constvars) == len(consts)
    )


def _ranks(outer: Sequence[Any], inner: Sequence[Any]) -> list[int]:
    """Axes that each value has outside beyond those that it has inside."""
    pairs = zip(outer, inner, strict=True)
    return [len(a.aval.shape) - len(b.aval.shape) for a, b in pairs]
