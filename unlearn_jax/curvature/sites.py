"""Finds the places of a program where parameters meet the example.

A *site* is an operand, computed from parameters alone, of an operation that also reads
the example:

* ``product``: a matrix product or convolution; the gradient is Σₜ inputsₜ ⊗ slopesₜ.
* ``rows``: an embedding; the gradient has the slopes in the rows that were looked up.
* ``whole``: anything else; the operand gets a copy for each example, whose gradient is
  the example's own.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.curvature.layouts import (
    Layout,
    convolution_layout,
    dot_layout,
    looks_up_rows,
)
from unlearn_jax.curvature.program import (
    DATA,
    PARAMETER,
    Known,
    Operation,
    Program,
    ancestors,
    flatten,
)

_REARRANGE = ("reshape", "transpose", "squeeze", "expand_dims", "copy", "rev")


class Site(NamedTuple):
    """Description: one operand where parameters meet data.

    Attributes:
        kind: "product", "rows" or "whole".
        operation: Number of the operation; one past the last for an output.
        position: Which operand of it; for ``whole``, the first place of that operand.
        shape: Of the zeros that are added, for one example.
        leaves: Parameters that the operand is computed from.
        plain: Whether the operand is one parameter, rearranged.
        layout: For a product, the common form.
        inner: For a product inside of a scan, the operation in its body.
        stacked: Whether the scan runs over the weight (a weight for each step).
    """

    kind: Literal["product", "rows", "whole"]
    operation: int
    position: int
    shape: jax.ShapeDtypeStruct
    leaves: tuple[int, ...]
    plain: bool
    layout: Layout | None = None
    inner: int | None = None
    stacked: bool = False


def find_sites(program: Program) -> tuple[tuple[Site, ...], dict[int, Program]]:
    """All sites of a program, and the bodies of the scans that hold some."""
    sites: list[Site] = []
    bodies: dict[int, Program] = {}
    for index, operation in enumerate(program.operations):
        if not program.mixed(operation):
            continue
        if operation.name == "scan":
            bodies[index], inside = _scan_sites(program, index, operation)
            sites += inside
        else:
            sites += _sites(program, index, operation)
    end = len(program.operations)
    for position, output in enumerate(program.outputs):
        if program.role(output) == PARAMETER:
            sites.append(_whole(program, end, position, output))
    return tuple(sites), bodies


def _sites(program: Program, index: int, operation: Operation) -> list[Site]:
    """The sites of one operation outside of scans."""
    places = [
        position
        for position, operand in enumerate(operation.inputs)
        if program.role(operand) == PARAMETER
        and jnp.issubdtype(program.shapes[operand].dtype, jnp.inexact)
    ]
    layout = _product_layout(program, operation, places)
    if len(places) == 1:
        operand = operation.inputs[places[0]]
        plain = _plain(program, operand) is not None
        kind = None
        if layout is not None:
            kind = "product"
        elif plain and _is_lookup(program, operation, places):
            kind = "rows"
        if kind is not None:
            shape = program.shapes[operation.outputs[0]]
            return [
                Site(
                    kind,
                    index,
                    places[0],
                    shape,
                    _leaves(program, operand),
                    plain,
                    layout,
                )
            ]
    first = {operation.inputs[position]: position for position in reversed(places)}
    return [
        _whole(program, index, position, operand) for operand, position in first.items()
    ]


def _whole(program: Program, index: int, position: int, operand: Any) -> Site:
    plain = _plain(program, operand) is not None
    shape = program.shapes[operand]
    return Site("whole", index, position, shape, _leaves(program, operand), plain)


def _scan_sites(
    program: Program, index: int, operation: Operation
) -> tuple[Program, list[Site]]:
    """Products in the body keep their factors; other operands become whole."""
    params = operation.params
    consts, carries = params["num_consts"], params["num_carry"]
    roles = [program.role(operand) for operand in operation.inputs]
    roles[consts : consts + carries] = [DATA] * carries
    body = flatten(params["jaxpr"], roles)
    numbers = {number: position for position, number in enumerate(body.inputs)}
    whole = {
        position
        for position in range(consts, consts + carries)
        if program.role(operation.inputs[position]) == PARAMETER
    }
    products: list[tuple[int, int, frozenset[int]]] = []

    def sources(operand: Any) -> frozenset[int]:
        reached = ancestors(body, [operand]) & set(numbers)
        return frozenset(
            numbers[number] for number in reached if body.role(number) == PARAMETER
        )

    for place, inside in enumerate(body.operations):
        if not body.mixed(inside):
            continue
        for site in _sites(body, place, inside):
            used = sources(inside.inputs[site.position])
            if site.kind == "product":
                products.append((place, site.position, used))
            else:
                whole |= used
    for output in body.outputs:
        if body.role(output) == PARAMETER:
            whole |= sources(output)
    while any(used & whole and not used <= whole for _, _, used in products):
        for _, _, used in products:
            if used & whole:
                whole |= used
    sites = [
        _whole(program, index, position, operation.inputs[position])
        for position in sorted(whole)
    ]
    for place, position, used in products:
        if not used & whole:
            sites.append(
                _inner_site(program, body, index, (place, position), sorted(used))
            )
    return body, sites


def over_steps(value: Any, stacked: bool) -> Any:
    """(steps, g, t, i): to more groups for stacked weights, else to more positions."""
    steps, groups, positions, size = value.shape
    if stacked:
        return value.reshape(steps * groups, positions, size)
    return value.transpose(1, 0, 2, 3).reshape(groups, steps * positions, size)


def _inner_site(
    program: Program,
    body: Program,
    index: int,
    place: tuple[int, int],
    used: Sequence[int],
) -> Site:
    operation = program.operations[index]
    params = operation.params
    inside = body.operations[place[0]]
    # A constant row makes another weight at each step just as a parameter's does.
    reached = ancestors(body, [inside.inputs[place[1]]])
    stacked = not reached.isdisjoint(body.inputs[params["num_consts"] :])
    layout = step_layout(body, inside, place[1])
    result = body.shapes[inside.outputs[0]]
    outer = [operation.inputs[position] for position in used]
    source = _plain(body, inside.inputs[place[1]])
    plain = source is not None and _plain(program, outer[0]) is not None
    shape = jax.ShapeDtypeStruct((params["length"], *result.shape), result.dtype)

    def slopes(value: Any) -> Any:
        return over_steps(jax.vmap(layout.slopes)(value), stacked)

    def weight(value: Any) -> Any:
        moved = jax.vmap(layout.weight)(value)
        return moved.reshape(-1, *moved.shape[2:])

    def unweight(value: Any) -> Any:
        split = value.reshape(params["length"], -1, *value.shape[1:])
        return jax.vmap(layout.unweight)(split)

    maps = (weight, unweight) if stacked else (layout.weight, layout.unweight)
    leaves = sorted({leaf for operand in outer for leaf in _leaves(program, operand)})
    return Site(
        "product",
        index,
        place[1],
        shape,
        tuple(leaves),
        plain,
        Layout(layout.inputs, slopes, *maps),
        place[0],
        stacked,
    )


def _leaves(program: Program, operand: Any) -> tuple[int, ...]:
    """Which arguments an operand is computed from."""
    reached = ancestors(program, [operand])
    return tuple(
        place for place, number in enumerate(program.inputs) if number in reached
    )


def _plain(program: Program, operand: Any) -> int | None:
    """The argument that an operand is a rearrangement of, if it is one."""
    if operand in program.inputs:
        return operand
    for operation in program.operations:
        if operand in operation.outputs:
            first = operation.inputs[0]
            name = operation.name
            if isinstance(first, Known) or len(operation.inputs) != 1:
                return None
            source, result = program.shapes[first], program.shapes[operand]
            cast = name == "convert_element_type" and jnp.issubdtype(
                result.dtype, jnp.floating
            )
            spread = name == "broadcast_in_dim" and source.size == result.size
            if name in _REARRANGE or cast or spread:
                return _plain(program, first)
            return None
    return None


def _product_layout(
    program: Program, operation: Operation, places: Sequence[int]
) -> Layout | None:
    if len(places) != 1 or len(operation.inputs) != 2:
        return None
    shapes = [
        jnp.shape(operand.value)
        if isinstance(operand, Known)
        else program.shapes[operand].shape
        for operand in operation.inputs
    ]
    name, params = operation.name, operation.params
    if name == "dot_general":
        return dot_layout(params, shapes, places[0])
    grouped = params.get("batch_group_count", 1) != 1
    if name == "conv_general_dilated" and places == [1] and not grouped:
        return convolution_layout(params, shapes)
    return None


def step_layout(body: Program, inside: Operation, position: int) -> Layout:
    """Layout of a product in a scan's body, for one step."""
    layout = _product_layout(body, inside, [position])
    if layout is None:
        raise AssertionError("a product site has a layout")
    return layout


def _is_lookup(program: Program, operation: Operation, places: Sequence[int]) -> bool:
    if operation.name != "gather" or list(places) != [0]:
        return False
    shapes = [
        jnp.shape(operand.value)
        if isinstance(operand, Known)
        else program.shapes[operand].shape
        for operand in operation.inputs
    ]
    return looks_up_rows(operation.params, shapes)
