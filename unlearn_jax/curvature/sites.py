"""Finds the places of a program where parameters meet the example.

A *site* is an operand, computed from parameters alone, of an operation that also reads
the example:

* ``product``: a matrix product or convolution; the gradient is Σₜ inputsₜ ⊗ slopesₜ.
* ``rows``: an embedding; the gradient has the slopes in the rows that were looked up.
* ``whole``: anything else; the operand gets a copy for each example, whose gradient is
  the example's own.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.curvature import jax_forms
from unlearn_jax.curvature.layouts import (
    Layout,
    Lookup,
    convolution_layout,
    dot_layout,
    lookup,
)
from unlearn_jax.curvature.program import (
    CONSTANT,
    DATA,
    PARAMETER,
    Known,
    Operation,
    Program,
    ancestors,
    flatten,
)
from unlearn_jax.curvature.steps import Steps, for_each_row, shape_after


class Site(NamedTuple):
    """Description: one operand where parameters meet data.

    Attributes:
        kind: "product", "rows" or "whole".
        operation: Number of the operation; one past the last for an output.
        position: Which operand of it; for ``whole``, the first place of that operand.
        shape: Of the zeros that are added, for one example.
        leaves: Parameters that the operand is computed from.
        steps: From the parameter to the form, where the operand is one parameter,
            rearranged; else None.
        scaled: Whether the operand is that times a number.
        layout: For a product or rows, the form.
        inner: For a product inside of a scan, the operation in its body.
        stacked: Whether the scan runs over the weight (a weight for each step).
    """

    kind: Literal["product", "rows", "whole"]
    operation: int
    position: int
    shape: jax.ShapeDtypeStruct
    leaves: tuple[int, ...]
    steps: Steps | None = None
    scaled: bool = False
    layout: Layout | Lookup | None = None
    inner: int | None = None
    stacked: bool = False


def find_sites(program: Program) -> tuple[tuple[Site, ...], dict[int, Program]]:
    """All sites of a program, and the bodies of the scans that hold some."""
    sites: list[Site] = []
    bodies: dict[int, Program] = {}
    for index, operation in enumerate(program.operations):
        if not program.mixed(operation):
            continue
        scan = jax_forms.scan(operation.equation)
        if scan is not None:
            bodies[index], inside = _scan_sites(program, index, operation, scan)
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
    if len(places) == 1:
        operand = operation.inputs[places[0]]
        shape = program.shapes[operation.outputs[0]]
        source = _source(program, operand)
        layout = product_layout(program, operation, places[0])
        kind: Literal["product", "rows"] = "product"
        if layout is None and source is not None and places[0] == 0:
            layout, kind = _lookup(program, operation), "rows"
        if layout is not None:
            site = Site(kind, index, places[0], shape, _leaves(program, operand))
            if source is not None:
                steps = (*source.steps, *layout.steps)
                site = site._replace(steps=steps, scaled=source.scaled)
            return [site._replace(layout=layout)]
    first = {operation.inputs[position]: position for position in reversed(places)}
    return [
        _whole(program, index, position, operand) for operand, position in first.items()
    ]


def _whole(program: Program, index: int, position: int, operand: Any) -> Site:
    shape = program.shapes[operand]
    return Site("whole", index, position, shape, _leaves(program, operand))


def _scan_sites(
    program: Program, index: int, operation: Operation, scan: jax_forms.Scan
) -> tuple[Program, list[Site]]:
    """Products in the body keep their factors; other operands become whole."""
    consts, carries = scan.consts, scan.carries
    roles = [program.role(operand) for operand in operation.inputs]
    roles[consts : consts + carries] = [DATA] * carries
    body = flatten(scan.body, roles)
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
            at = (place, position)
            sites.append(_inner_site(program, body, scan, index, at, sorted(used)))
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
    scan: jax_forms.Scan,
    index: int,
    place: tuple[int, int],
    used: Sequence[int],
) -> Site:
    operation = program.operations[index]
    inside = body.operations[place[0]]
    # A constant row makes another weight at each step just as a parameter's does.
    weight = inside.inputs[place[1]]
    stacked = not ancestors(body, [weight]).isdisjoint(body.inputs[scan.consts :])
    layout = step_layout(body, inside, place[1])
    result = body.shapes[inside.outputs[0]]
    outer = [operation.inputs[position] for position in used]

    def slopes(value: Any) -> Any:
        return over_steps(jax.vmap(layout.slopes)(value), stacked)

    def joined(steps: Steps) -> Steps:
        """For all steps of the scan, whose groups follow one another."""
        if not stacked:
            return steps
        groups, *form = shape_after(layout.steps, layout.shape)
        lifted = for_each_row(steps, scan.length)
        return (*lifted, ("reshape", (scan.length * groups, *form)))

    shape = (scan.length, *layout.shape) if stacked else layout.shape
    site = Site(
        "product",
        index,
        place[1],
        jax.ShapeDtypeStruct((scan.length, *result.shape), result.dtype),
        tuple(sorted({x for operand in outer for x in _leaves(program, operand)})),
        layout=Layout(layout.inputs, slopes, joined(layout.steps), shape),
        inner=place[0],
        stacked=stacked,
    )
    inner, source = _source(body, weight), _source(program, outer[0])
    # A number may be another one at each step: only outside is it one for all.
    if inner is None or inner.scaled or source is None:
        return site
    steps = (*source.steps, *joined((*inner.steps, *layout.steps)))
    return site._replace(steps=steps, scaled=source.scaled)


def _leaves(program: Program, operand: Any) -> tuple[int, ...]:
    """Which arguments an operand is computed from."""
    reached = ancestors(program, [operand])
    return tuple(
        place for place, number in enumerate(program.inputs) if number in reached
    )


class _Source(NamedTuple):
    """Description: one argument, rearranged by ``steps`` and perhaps times a number."""

    number: int
    steps: Steps
    scaled: bool


def _source(program: Program, operand: Any) -> _Source | None:
    """The argument that an operand is a rearrangement of, if it is one."""
    if operand in program.inputs:
        return _Source(operand, (), False)
    operation = _maker(program, operand)
    if operation is None:
        return None
    equation = operation.equation
    own = jax_forms.rearrangement(equation)
    if own is not None and not isinstance(operation.inputs[0], Known):
        found = _source(program, operation.inputs[0])
        return found and found._replace(steps=(*found.steps, *own))
    for number in jax_forms.factors(equation):
        if _one(program, operation.inputs[number]):
            held = operation.inputs[1 - number]
            found = None if isinstance(held, Known) else _source(program, held)
            return found and found._replace(scaled=True)
    return None


def _maker(program: Program, operand: Any) -> Operation | None:
    for operation in program.operations:
        if not isinstance(operand, Known) and operand in operation.outputs:
            return operation
    return None


def _one(program: Program, operand: Any) -> bool:
    """Whether an operand is one constant number, copied to all places."""
    if program.role(operand) != CONSTANT:
        return False
    shape = _shape(program, operand)
    if math.prod(shape) == 1:
        return True
    operation = _maker(program, operand)
    return (
        operation is not None
        and jax_forms.spreads(operation.equation)
        and _one(program, operation.inputs[0])
    )


def product_layout(program: Program, operation: Operation, place: int) -> Layout | None:
    """Layout of an operation whose operand ``place`` is the weight, if it is known."""
    shapes = [_shape(program, operand) for operand in operation.inputs]
    product = jax_forms.product(operation.equation)
    if product is not None:
        return dot_layout(product, shapes, place)
    found = jax_forms.convolution(operation.equation)
    if found is not None and place == 1:
        return convolution_layout(found, shapes)
    return None


def step_layout(body: Program, inside: Operation, position: int) -> Layout:
    """Layout of a product in a scan's body, for one step."""
    layout = product_layout(body, inside, position)
    if layout is None:
        raise AssertionError("a product site has a layout")
    return layout


def _lookup(program: Program, operation: Operation) -> Lookup | None:
    found = jax_forms.gather(operation.equation)
    if found is None:
        return None
    return lookup(found, *(_shape(program, operand) for operand in operation.inputs))


def _shape(program: Program, operand: Any) -> tuple[int, ...]:
    if isinstance(operand, Known):
        return jnp.shape(operand.value)
    return program.shapes[operand].shape
