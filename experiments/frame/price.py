"""What a study runs, and its price: warm where it is one program."""

import time
from collections.abc import Callable
from typing import Any

import jax

from unlearn_jax.evaluation.cost import Compiled, Cost, check_memory, compile_once, run
from unlearn_jax.train.fit import choose_fit_loop
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch


def priced(
    learner: Learner,
    train: Batch,
    function: Callable[..., Any],
    *arguments: Any,
    programs: dict[Any, Compiled] | None = None,
    name: Any = "",
) -> tuple[Any, Cost]:
    """The result of a function and its price, warm where it is one program.

    Args:
        learner: Where its training loops on the host, nothing is one program.
        train: What it trains on.
        function: Arrays in, arrays out.
        arguments: Its arguments.
        programs: What is compiled already, by name and shapes; added to.
        name: Of the function in there.

    Raises:
        MemoryError: the program does not fit the memory; it was not run.
    """
    if choose_fit_loop(learner, train) == "host":
        start, working = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(function(*arguments))
        spent = time.perf_counter() - start, time.process_time() - working
        return result, Cost(0.0, spent[0], 1, None, None, spent[1])
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
    key = (name, structure, shapes)
    programs = {} if programs is None else programs
    if key not in programs:
        programs[key] = compile_once(function, *arguments)
        told = name if isinstance(name, str) else " ".join(map(str, name))
        check_memory(programs[key], told or "this program")
    return run(programs[key], *arguments)
