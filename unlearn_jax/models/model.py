"""A model is four pure functions; ``from_nnx`` is the only bridge to Flax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from unlearn_jax.types import Variables


class Model(NamedTuple):
    """Description: a model as pure functions of its variables.

    A model from any other library fits in five lines: write these four functions.

    Attributes:
        init: ``key -> Variables``.
        apply: ``(variables, inputs) -> outputs``: evaluation mode, deterministic,
            examples independent of each other. Curvature always uses this one.
        apply_train: ``(key, variables, inputs) -> (outputs, variables)``: the key is
            for dropout; ``stats`` move, ``params`` do not.
        features: ``(variables, inputs) -> features``: the input of the last linear map.
    """

    init: Callable[[Any], Variables]
    apply: Callable[[Variables, Any], Any]
    apply_train: Callable[[Any, Variables, Any], tuple[Any, Variables]]
    features: Callable[[Variables, Any], Any]


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Wrap a Flax NNX module as a Model.

    Args:
        make: Builds the module, whose ``__call__(inputs, *, rngs=None)`` is
            ``head(features(inputs))`` and whose only state is parameters
            (``nnx.Param``) and batch statistics (``nnx.BatchStat``).

    Returns:
        Model whose parameters are a nested dict named by the module's attributes.

    Raises:
        ValueError: the module keeps other state, such as a random stream inside a
            dropout layer; the leaf is named. Pass ``rngs`` at the call instead.

    Batch-norm couples the examples of a batch in training mode: there a per-example
    gradient is not defined, and the sum of single-example gradients differs from the
    batch's by more than its own size. In evaluation mode they agree to rounding.
    """
    template = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    _refuse_other_state(template)
    template.eval()
    graph_eval, params_like, stats_like = nnx.split(template, nnx.Param, nnx.BatchStat)
    template.train()
    graph_train = nnx.split(template, nnx.Param, nnx.BatchStat)[0]

    def build(graph: Any, variables: Variables) -> Any:
        params = jax.tree.map(lambda leaf: leaf, params_like)
        stats = jax.tree.map(lambda leaf: leaf, stats_like)
        nnx.replace_by_pure_dict(params, variables.params)
        nnx.replace_by_pure_dict(stats, variables.stats)
        return nnx.merge(graph, params, stats)

    def init(key: Any) -> Variables:
        _, params, stats = nnx.split(
            make(nnx.Rngs(params=key)), nnx.Param, nnx.BatchStat
        )
        return Variables(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))

    def apply(variables: Variables, inputs: Any) -> Any:
        return build(graph_eval, variables)(jnp.asarray(inputs))

    def apply_train(
        key: Any, variables: Variables, inputs: Any
    ) -> tuple[Any, Variables]:
        module = build(graph_train, variables)
        outputs = module(jnp.asarray(inputs), rngs=nnx.Rngs(dropout=key))
        stats = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
        return outputs, variables._replace(stats=stats)

    def features(variables: Variables, inputs: Any) -> Any:
        return build(graph_eval, variables).features(jnp.asarray(inputs))

    return Model(init, apply, apply_train, features)


def _refuse_other_state(module: nnx.Module) -> None:
    other = nnx.state(module, nnx.Not(nnx.Any(nnx.Param, nnx.BatchStat)))
    names = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(other)]
    if names:
        raise ValueError(
            f"the module keeps state besides parameters and batch statistics: "
            f"{', '.join(names)}; pass random streams at the call "
            f"(module(inputs, rngs=...)) instead of storing them"
        )
