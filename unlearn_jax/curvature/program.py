"""The program of one example as a flat list of operations, and what each depends on."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex_core

from unlearn_jax.curvature import jax_forms

CONSTANT, PARAMETER, DATA = 0, 1, 2
"""Roles of a value: depends on neither, on parameters alone, on the example."""


class Known(NamedTuple):
    """Value: an operand that is an array or a number, not a result."""

    value: Any


class Operation(NamedTuple):
    """Description: one equation; operands are numbers of values, or ``Known``."""

    equation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the primitive."""
        return self.equation.primitive.name


class Program(NamedTuple):
    """Description: operations in order, with calls inlined.

    Attributes:
        inputs: Numbers of the arguments.
        outputs: Numbers of the results, or ``Known``.
        operations: In the order of execution.
        roles: Role of each number.
        shapes: ``jax.ShapeDtypeStruct`` of each number.
    """

    inputs: tuple[int, ...]
    outputs: tuple[Any, ...]
    operations: tuple[Operation, ...]
    roles: tuple[int, ...]
    shapes: tuple[jax.ShapeDtypeStruct, ...]

    def role(self, operand: Any) -> int:
        """Role of an operand."""
        return CONSTANT if isinstance(operand, Known) else self.roles[operand]

    def mixed(self, operation: Operation) -> bool:
        """Whether parameters meet data here."""
        roles = {self.role(operand) for operand in operation.inputs}
        return PARAMETER in roles and DATA in roles


def flatten(closed: Any, roles: Sequence[int]) -> Program:
    """Inline the calls of a jaxpr and give every value a number and a role.

    Args:
        closed: From ``jax.make_jaxpr``, or the body of a scan.
        roles: Of its arguments.
    """
    jaxpr, held = closed.jaxpr, closed.consts
    operations: list[Operation] = []
    all_roles: list[int] = []
    shapes: list[jax.ShapeDtypeStruct] = []

    def number(var: Any, role: int) -> int:
        all_roles.append(role)
        shapes.append(jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype))
        return len(all_roles) - 1

    def role_of(operand: Any) -> int:
        return CONSTANT if isinstance(operand, Known) else all_roles[operand]

    def inline(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list:
        names: dict[Any, Any] = {}

        def read(atom: Any) -> Any:
            return (
                Known(atom.val) if isinstance(atom, jex_core.Literal) else names[atom]
            )

        names.update(zip(jaxpr.constvars, map(Known, consts), strict=True))
        names.update(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            operands = tuple(read(atom) for atom in equation.invars)
            inner = jax_forms.call(equation)
            if inner is not None:
                results = inline(inner.jaxpr, inner.consts, operands)
                names.update(zip(equation.outvars, results, strict=True))
                continue
            role = max(map(role_of, operands), default=CONSTANT)
            if role == PARAMETER and jax_forms.stops_gradient(equation):
                role = CONSTANT  # No gradient passes: as good as a number.
            results = tuple(number(var, role) for var in equation.outvars)
            names.update(zip(equation.outvars, results, strict=True))
            operations.append(Operation(equation, operands, results))
        return [read(atom) for atom in jaxpr.outvars]

    arguments = [
        number(var, role) for var, role in zip(jaxpr.invars, roles, strict=True)
    ]
    outputs = inline(jaxpr, held, arguments)
    return Program(
        tuple(arguments),
        tuple(outputs),
        tuple(operations),
        tuple(all_roles),
        tuple(shapes),
    )


def run(
    program: Program,
    known: dict[int, Any],
    wanted: Callable[[Operation], bool],
    special: Callable[[int, Operation, Callable[[Any], Any]], list[Any] | None],
) -> Callable[[Any], Any]:
    """Execute the wanted operations; returns the reader of values.

    Args:
        program: What to execute.
        known: Values by number; filled in place.
        wanted: Which operations to execute.
        special: Of index, operation and reader: the results, or None for the ordinary.
    """

    def read(operand: Any) -> Any:
        return operand.value if isinstance(operand, Known) else known[operand]

    for index, operation in enumerate(program.operations):
        if not wanted(operation):
            continue
        results = special(index, operation, read)
        if results is None:
            values = [read(operand) for operand in operation.inputs]
            results = jax_forms.bind(operation.equation, values)
        known.update(zip(operation.outputs, results, strict=True))
    return read


def ancestors(program: Program, operands: Sequence[Any]) -> set[int]:
    """All values that these operands are computed from, themselves included."""
    reached = {operand for operand in operands if not isinstance(operand, Known)}
    for operation in reversed(program.operations):
        if reached.intersection(operation.outputs):
            reached.update(
                operand
                for operand in operation.inputs
                if not isinstance(operand, Known)
            )
    return reached
