"""What a computation costs: seconds, with compilation apart, bytes, operations."""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from unlearn_jax.storage.write import readable_bytes
from unlearn_jax.train.chunk import free_memory

MAX_REPEATS = 5
ENOUGH_SECONDS = 0.3


class Cost(NamedTuple):
    """Value: the price of one call.

    Attributes:
        compile_seconds: Tracing, lowering and compiling; paid once per shape. With
            JAX's persistent cache switched on it may be a mere read.
        seconds: One call of the compiled program until its results are ready, by the
            wall clock; the median of ``repeats`` calls.
        repeats: Calls timed: until they sum to 0.3 s, at most 5 (count).
        peak_bytes: Arguments + outputs + temporaries of the program as the compiler
            plans them (an output that reuses an argument's memory counts once). Not
            the program itself, nor what else lives on the device. None where the
            platform does not tell.
        flops: Floating-point operations as the compiler counts them, None where it
            does not. A loop's body counts ONCE, however often it runs, and library
            calls may count nothing: read it as a lower bound.
        cpu_seconds: Processor time of one call, over all threads of this process; the
            median. On a machine shared with others it moves less than ``seconds``; of
            an accelerator's work it sees nothing.
    """

    compile_seconds: float
    seconds: float
    repeats: int
    peak_bytes: int | None
    flops: float | None
    cpu_seconds: float


class Compiled(NamedTuple):
    """Description: a program for arguments of fixed shapes, with its static costs.

    Attributes:
        call: The program.
        compile_seconds: As in :class:`Cost`.
        peak_bytes: As in :class:`Cost`.
        flops: As in :class:`Cost`.
        new_bytes: Of the peak, what the arguments do not hold already.
    """

    call: Callable[..., Any]
    compile_seconds: float
    peak_bytes: int | None
    flops: float | None
    new_bytes: int | None = None


def compile_once(function: Callable[..., Any], *args: Any, **static: Any) -> Compiled:
    """Compile ``function`` for arguments shaped like ``args``, without running it.

    Args:
        function: Arrays in, arrays out.
        args: Pytrees of arrays, or of ``jax.ShapeDtypeStruct``.
        static: Keyword arguments, bound as constants before tracing.

    Returns:
        Compiled, for ``run`` with any arguments of the same shapes and dtypes.
    """
    start = time.perf_counter()
    lowered = jax.jit(functools.partial(function, **static)).lower(*args)
    program = lowered.compile()
    seconds = time.perf_counter() - start
    peak, held = _peak_bytes(program), _held_bytes(program)
    new = None if peak is None or held is None else peak - held
    return Compiled(program, seconds, peak, _flops(program), new)


def check_memory(compiled: Compiled, what: str, *, free: int | None = None) -> None:
    """Refuse a program that the device cannot hold, before it runs.

    Args:
        compiled: The program; one whose compiler does not tell passes.
        what: It is, for the message.
        free: Bytes that there are; None asks the device, on a CPU the machine.

    Raises:
        MemoryError: its results and temporaries are more than is free; says by how
            much, by the compiler's account.
    """
    if compiled.new_bytes is None:
        return
    free = free_memory() if free is None else free
    if compiled.new_bytes > free:
        raise MemoryError(
            f"{what} needs {readable_bytes(compiled.new_bytes)} beside its arguments "
            f"by the compiler's account, {readable_bytes(free)} are free; lower its "
            f"batch size, the number of examples or the net's width, or take a device "
            f"with more memory; nothing was run"
        )


def run(compiled: Compiled, *args: Any) -> tuple[Any, Cost]:
    """Call a compiled program, repeatedly if it is short, and time it.

    The function must be pure: its last result is returned, and all are equal. The first
    call also touches fresh memory; from three repeats on the median leaves it out.

    Raises:
        TypeError: the arguments differ in shape or dtype from those compiled for.
    """
    taken: list[float] = []
    worked: list[float] = []
    result = None
    while len(taken) < MAX_REPEATS and sum(taken) < ENOUGH_SECONDS:
        del result
        start, working = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(compiled.call(*args))
        taken.append(time.perf_counter() - start)
        worked.append(time.process_time() - working)
    cost = Cost(
        compile_seconds=compiled.compile_seconds,
        seconds=statistics.median(taken),
        repeats=len(taken),
        peak_bytes=compiled.peak_bytes,
        flops=compiled.flops,
        cpu_seconds=statistics.median(worked),
    )
    return result, cost


def measured(
    function: Callable[..., Any], *args: Any, **static: Any
) -> tuple[Any, Cost]:
    """Compile and run in one go: ``run(compile_once(function, *args), *args)``."""
    return run(compile_once(function, *args, **static), *args)


def added(first: Cost, second: Cost) -> Cost:
    """The price of one thing and another; repeats and memory are those of the first."""
    return first._replace(
        compile_seconds=first.compile_seconds + second.compile_seconds,
        seconds=first.seconds + second.seconds,
        cpu_seconds=first.cpu_seconds + second.cpu_seconds,
    )


def _peak_bytes(program: Any) -> int | None:
    memory = program.memory_analysis()
    if memory is None:
        return None
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return int(held + memory.temp_size_in_bytes - memory.alias_size_in_bytes)


def _held_bytes(program: Any) -> int | None:
    memory = program.memory_analysis()
    return None if memory is None else int(memory.argument_size_in_bytes)


def _flops(program: Any) -> float | None:
    analysis = program.cost_analysis()
    counted = analysis.get("flops") if isinstance(analysis, dict) else None
    return float(counted) if counted is not None and counted >= 0 else None
