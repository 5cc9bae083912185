"""Inputs and slopes at the sites of a program, by one forward and one backward pass.

The program is traced for one example and mapped over examples, so no axis has to be
recognised as "the examples" and neighbours cannot couple. Slopes are gradients with
respect to zeros added to the results of a site's operation (or to its operand).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.curvature import jax_forms
from unlearn_jax.curvature.layouts import Layout, Lookup
from unlearn_jax.curvature.program import (
    DATA,
    PARAMETER,
    Known,
    Operation,
    Program,
    ancestors,
    flatten,
    run,
)
from unlearn_jax.curvature.sites import Site, find_sites, over_steps, step_layout
from unlearn_jax.train.door import check_outputs
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Params
from unlearn_kernels.varying import vary, varying_axes


class Tape(NamedTuple):
    """Description: the program of one example with its sites.

    Attributes:
        program: Arguments are the parameters' leaves and those of the example.
        structure: Of the parameters.
        sites: In the order of execution.
        bodies: Program of the body, by operation, for scans with sites inside.
    """

    program: Program
    structure: Any
    sites: tuple[Site, ...]
    bodies: dict[int, Program]


def tape(predict: Callable[[Any, Any], Any], params: Params, inputs: Any) -> Tape:
    """Trace ``predict`` on one example and find its sites.

    Args:
        predict: ``(params, inputs) -> outputs``, examples along the first axes.
        params: Only shapes and dtypes are read.
        inputs: Only the shapes of one example and the dtypes are read.

    Raises:
        ValueError: the outputs are not one array, examples first.
    """
    check_outputs("per-example gradients", predict, params, inputs, 2)
    leaves, structure = jax.tree.flatten(params)
    shapes = [jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves]
    example = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[1:], jnp.result_type(x)), inputs
    )
    if varying_axes((leaves, inputs)):  # of which shapes alone tell nothing
        shapes = vary(leaves, inputs)
        example = vary(jax.tree.map(lambda x: x[0], inputs), leaves)

    def one(leaves: list[Any], example: Any) -> Any:
        alone = jax.tree.map(lambda x: x[None], example)
        return predict(jax.tree.unflatten(structure, leaves), alone)[0]

    roles = [PARAMETER] * len(leaves) + [DATA] * len(jax.tree.leaves(inputs))
    program = flatten(jax.make_jaxpr(one)(shapes, example), roles)
    return Tape(program, structure, *find_sites(program))


def weights_at(taped: Tape, leaves: Sequence[Any], sites: Sequence[Site]) -> list[Any]:
    """The operands at these sites as functions of the parameters' leaves."""
    program = taped.program
    operands = [_operand(program, site) for site in sites]
    wanted = [
        program.operations[site.operation].inputs[position]
        for site in sites
        if site.inner is not None
        for position in _feeds(taped, site)
    ]
    read = _settle(program, leaves, [*operands, *wanted])
    return [
        read(operand) if site.inner is None else _inner_weight(taped, site, read)
        for site, operand in zip(sites, operands, strict=True)
    ]


def linearise(
    taped: Tape, params: Params, inputs: Any
) -> tuple[Any, list[Any], Callable[[Any], list[Any]]]:
    """Outputs of all examples, inputs at the sites, and the way back to slopes.

    Args:
        taped: From :func:`tape`.
        params: Where.
        inputs: (n, …), or a tree of such arrays.

    Returns:
        (outputs (n, …); for each site (n, g, t, i), row numbers (n, t), or None;
        a function from cotangents of the outputs to slopes, for each site (n, g, t, o),
        (n, t, *row), or (n, …)), which may be called many times.
    """
    program, sites = taped.program, taped.sites
    settled = [
        operand
        for operation in program.operations
        if any(program.role(operand) == DATA for operand in operation.inputs)
        for operand in operation.inputs
        if program.role(operand) != DATA
    ]
    settled += [out for out in program.outputs if program.role(out) != DATA]
    leaves = jax.tree.leaves(params)
    outside = _settle(program, leaves, settled)
    held = {
        number: outside(number) for number in settled if not isinstance(number, Known)
    }

    def one(example: Any, zeros: list[Any]) -> tuple[Any, list[Any]]:
        return _execute(taped, dict(held), example, zeros)

    n = leading_axis(inputs)
    zeros = [jnp.zeros((n, *site.shape.shape), site.shape.dtype) for site in sites]
    zeros = vary(zeros, leaves, inputs)
    try:
        outputs, back, inputs_at = jax.vjp(
            lambda zeros: jax.vmap(one)(inputs, zeros), zeros, has_aux=True
        )
    except NotImplementedError:  # A primitive that cannot be mapped: one by one.
        outputs, back, inputs_at = jax.vjp(
            lambda zeros: jax.lax.map(lambda pair: one(*pair), (inputs, zeros)),
            zeros,
            has_aux=True,
        )

    def slopes(cotangents: Any) -> list[Any]:
        (found,) = back(cotangents)
        return [
            jax.vmap(site.layout.slopes)(value) if site.layout else value
            for site, value in zip(sites, found, strict=True)
        ]

    return outputs, inputs_at, slopes


def _execute(
    taped: Tape, known: dict[int, Any], example: Any, zeros: list[Any]
) -> tuple[Any, list[Any]]:
    """One example through the program: its outputs, and the inputs at the sites."""
    program, sites = taped.program, taped.sites
    # The example's arrays are the last arguments.
    parts = program.inputs[taped.structure.num_leaves :]
    known.update(zip(parts, jax.tree.leaves(example), strict=True))
    found: list[Any] = [None] * len(sites)
    at: dict[int, list[int]] = {}
    for number, site in enumerate(sites):
        at.setdefault(site.operation, []).append(number)

    def special(index: int, operation: Operation, read: Any) -> list[Any] | None:
        if index not in at:
            return None
        values = [read(operand) for operand in operation.inputs]
        for number in at[index]:
            site = sites[number]
            if site.kind == "whole":
                copied = operation.inputs[site.position]
                # Each operand of a scan is a site of its own, equal operands too.
                values = [
                    value + zeros[number]
                    if place == site.position
                    or (operand == copied and index not in taped.bodies)
                    else value
                    for place, (operand, value) in enumerate(
                        zip(operation.inputs, values, strict=True)
                    )
                ]
        inner = [number for number in at[index] if sites[number].inner is not None]
        if index in taped.bodies:
            return _scan(taped, index, operation, values, inner, zeros, found)
        results = _product(operation, sites[at[index][0]], values)
        for number in at[index]:
            site = sites[number]
            if site.kind == "whole":
                continue
            other, added = values[1 - site.position], zeros[number]
            if isinstance(site.layout, Lookup):
                found[number], inside = site.layout.read(other)
                reached = jnp.expand_dims(inside, site.layout.offset)
                added = jnp.where(reached, added, jnp.zeros_like(added))
            elif site.layout is not None:
                found[number] = site.layout.inputs(other)
            results = [results[0] + added]
        return results

    def computed(operation: Operation) -> bool:
        # An operation without results (a print) is left out.
        return any(program.roles[output] == DATA for output in operation.outputs)

    read = run(program, known, computed, special)
    outputs = [read(output) for output in program.outputs]
    for number in at.get(len(program.operations), []):
        outputs[sites[number].position] += zeros[number]
    return outputs[0], found


def _product(operation: Operation, site: Site, values: list[Any]) -> list[Any]:
    """The operation; with one position as a vector times a matrix.

    Mapped over examples that is a plain matrix product, where the axis of length one
    would cost a copy of the result on CPU.
    """
    product = jax_forms.product(operation.equation)
    layout = site.layout
    if product is None or not isinstance(layout, Layout):
        return jax_forms.bind(operation.equation, values)
    inputs = layout.inputs(values[1 - site.position])
    if inputs.shape[:2] != (1, 1):
        return jax_forms.bind(operation.equation, values)
    outputs = jax.lax.dot(
        inputs[0, 0],
        layout.weight(values[site.position])[0],
        precision=product.precision,
        preferred_element_type=product.preferred,
    )
    return [outputs.reshape(site.shape.shape).astype(site.shape.dtype)]


def _scan(
    taped: Tape,
    index: int,
    operation: Operation,
    values: list[Any],
    inner: list[int],
    zeros: list[Any],
    found: list[Any],
) -> list[Any]:
    """A scan whose body adds its own slice of the zeros and hands out its inputs."""
    body, scan = taped.bodies[index], _known_scan(operation)
    consts, carries = scan.consts, scan.carries
    fixed, start, rows = (
        values[:consts],
        values[consts : consts + carries],
        values[consts + carries :],
    )
    by_operation = {taped.sites[number].inner: number for number in inner}

    def step(carry: list[Any], slices: Any) -> Any:
        row, own = slices
        seen: dict[int, Any] = {}

        def special(at: int, inside: Operation, read: Any) -> list[Any] | None:
            number = by_operation.get(at)
            if number is None:
                return None
            operands = [read(operand) for operand in inside.inputs]
            layout = step_layout(body, inside, taped.sites[number].position)
            seen[number] = layout.inputs(operands[1 - taped.sites[number].position])
            return [jax_forms.bind(inside.equation, operands)[0] + own[number]]

        known = dict(zip(body.inputs, [*fixed, *carry, *row], strict=True))
        read = run(body, known, lambda op: True, special)
        results = [read(output) for output in body.outputs]
        return results[:carries], (results[carries:], seen)

    own = {number: zeros[number] for number in inner}
    last, (stacked, seen) = jax.lax.scan(
        step,
        vary(start, rows, own),
        (rows, own),
        length=scan.length,
        reverse=scan.reverse,
        unroll=scan.unroll,
    )
    for number, value in seen.items():
        found[number] = over_steps(value, taped.sites[number].stacked)
    return [*last, *stacked]


def _known_scan(operation: Operation) -> jax_forms.Scan:
    scan = jax_forms.scan(operation.equation)
    if scan is None:
        raise AssertionError("only a scan that is known has a body")
    return scan


def _feeds(taped: Tape, site: Site) -> list[int]:
    """Which operands of a scan the weight of a product in its body is made of."""
    body = taped.bodies[site.operation]
    target = body.operations[site.inner or 0].inputs[site.position]
    needed = ancestors(body, [target])
    return [position for position, at in enumerate(body.inputs) if at in needed]


def _inner_weight(taped: Tape, site: Site, read: Callable[[Any], Any]) -> Any:
    """The weight of a product in a scan's body, from the operands of the scan."""
    operation = taped.program.operations[site.operation]
    body = taped.bodies[site.operation]
    target = body.operations[site.inner or 0].inputs[site.position]
    needed = ancestors(body, [target])
    consts = _known_scan(operation).consts
    fixed, rows = {}, {}
    for position in _feeds(taped, site):
        kind = fixed if position < consts else rows
        kind[body.inputs[position]] = read(operation.inputs[position])

    def evaluate(row: dict[int, Any]) -> Any:
        reader = run(
            body,
            {**fixed, **row},
            lambda op: bool(needed.intersection(op.outputs)),
            lambda *_: None,
        )
        return reader(target)

    return jax.vmap(evaluate)(rows) if site.stacked else evaluate({})


def _settle(
    program: Program, leaves: Sequence[Any], wanted: Sequence[Any]
) -> Callable[[Any], Any]:
    """Compute what does not depend on the example."""
    needed = ancestors(program, wanted)
    known = dict(zip(program.inputs, leaves, strict=False))
    return run(
        program,
        known,
        lambda op: bool(needed.intersection(op.outputs)),
        lambda *_: None,
    )


def _operand(program: Program, site: Site) -> Any:
    if site.operation == len(program.operations):
        return program.outputs[site.position]
    if site.inner is not None:
        return Known(None)
    return program.operations[site.operation].inputs[site.position]
