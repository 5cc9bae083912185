"""The vocabulary: an alias or a small tuple for every value that flows.

Shape letters mean the same everywhere:
    n examples   b batch   q query examples   k outputs or classes   f features
    p parameters (flattened)   m ensemble members   r rank   t sequence length

Two kinds of NamedTuple, never mixed. A *value* holds arrays and crosses ``jit``
(Variables, Batch). A *description* holds functions and is closed over, never passed
(Model, Objective, Learner, Method); passing one through ``jit`` is a TypeError.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jax import Array
from jaxtyping import Float, Inexact, Key, PyTree, UInt32

PRNGKey: TypeAlias = Key[Array, ""] | UInt32[Array, " words"]
"""Typed, of ``jax.random.key``, or raw, of ``jax.random.PRNGKey``."""
Scalar: TypeAlias = Float[Array, ""]
Params: TypeAlias = PyTree[Inexact[Array, "..."]]
"""What is differentiated, unlearned, dampened."""
Stats: TypeAlias = PyTree[Array]
"""Batch-norm averages: moved only by training."""
Inputs: TypeAlias = Any
Targets: TypeAlias = Any
"""Array, tuple or dict of arrays with one common first axis, the examples."""
Weights: TypeAlias = Float[Array | np.ndarray, " n"]
"""Data may rest in numpy until it is used."""
Outputs: TypeAlias = Inexact[Array, "n ... k"]
"""(n, k) for classification and regression, (n, t, k) for sequences."""
Features: TypeAlias = Inexact[Array, "n ... f"]
PerExample: TypeAlias = Float[Array, " n"]
Path: TypeAlias = tuple[Any, ...]
"""Keys that lead to a leaf of a parameter tree: ("blocks", 3, "conv", "kernel")."""

OutputLoss: TypeAlias = Callable[[Any, Any], Any]
"""(outputs, targets) -> one value per example; the caller reduces."""


class Variables(NamedTuple):
    """Value: everything a trained model is.

    Attributes:
        params: Parameters, a nested dict of floating-point arrays.
        stats: State that training moves and gradients do not; ``{}`` if none.
    """

    params: Params
    stats: Stats


class Batch(NamedTuple):
    """Value: examples with a weight each.

    A subset, a padding and a leave-one-out are all ``weights``: shapes stay fixed, so
    everything compiles once and maps over subsets.

    Attributes:
        inputs: Array, or tree of arrays, whose first axis runs over examples.
        targets: Class indices (int32), regression targets, tokens, or a tree of such.
        weights: Zero means that the example is not there. Training takes no negative
            ones; sums over examples (curvature, influence) do.
    """

    inputs: Inputs
    targets: Targets
    weights: Weights


class Estimate(NamedTuple):
    """Value: something drawn at random together with its own uncertainty."""

    value: Params
    stderr: Params
