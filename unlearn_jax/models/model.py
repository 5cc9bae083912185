"""A model is four pure functions; ``from_nnx`` is the only bridge to Flax."""

import inspect
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
        decoding: How a sequence is gone on with token by token; None for models that
            have no sequences.
    """

    init: Callable[[Any], Variables]
    apply: Callable[[Variables, Any], Any]
    apply_train: Callable[[Any, Variables, Any], tuple[Any, Variables]]
    features: Callable[[Variables, Any], Any]
    decoding: "Decoding | None" = None


class Decoding(NamedTuple):
    """Description: a model of sequences that keeps what earlier positions computed.

    Attributes:
        empty: ``(rows, length) -> cache`` with room for so many positions.
        extend: ``(variables, cache, tokens (n, t)) -> (outputs (n, t, k), cache)``: the
            outputs that ``apply`` has at these positions of the whole sequence. What
            does not fit into the room is not told: check lengths before.
        context: The longest sequence.
        settled: ``variables -> (decoding, variables)``, the same without what every
            step would do again to the variables; None where there is nothing.
    """

    empty: Callable[[int, int], Any]
    extend: Callable[[Variables, Any, Any], tuple[Any, Any]]
    context: int
    settled: "Callable[[Variables], tuple[Decoding, Variables]] | None" = None


def from_nnx(
    make: Callable[[nnx.Rngs], nnx.Module],
    *,
    empty: Callable[[int, int], Any] | None = None,
    context: int = 0,
) -> Model:
    """Wrap a Flax NNX module as a Model.

    Args:
        make: Builds the module, which is ``head(features(inputs))`` and whose only
            state is parameters (``nnx.Param``), batch statistics (``nnx.BatchStat``)
            and random streams: stored by its layers, as ``Dropout(rngs=rngs)`` does, or
            taken at the call, ``__call__(inputs, *, rngs=None)``, or both.
        empty: For a module with ``extend(cache, tokens)``: makes its empty cache.
        context: With ``empty``, the longest sequence.

    Returns:
        Model whose parameters are a nested dict named by the module's attributes. In
        training mode all streams are made from the key that is given; what a stored one
        holds is never read. In evaluation mode they are the same in every call.

    Raises:
        ValueError: the module keeps other state; the leaf is named.

    Batch-norm couples the examples of a batch in training mode: there a per-example
    gradient is not defined, and the sum of single-example gradients differs from the
    batch's by more than its own size. In evaluation mode they agree to rounding.
    """
    template = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    _refuse_other_state(template)
    template.eval()
    graph_eval, params_like, stats_like, streams_like = nnx.split(template, *_STATE)
    template.train()
    graph_train = nnx.split(template, *_STATE)[0]
    takes_streams = _takes_streams(template)

    def build(graph: Any, variables: Variables, key: Any) -> Any:
        states = [
            jax.tree.map(lambda leaf: leaf, like)
            for like in (params_like, stats_like, streams_like)
        ]
        streams = _streams(key, nnx.to_pure_dict(streams_like))
        values = (variables.params, variables.stats, streams)
        for state, value in zip(states, values, strict=True):
            nnx.replace_by_pure_dict(state, value)
        return nnx.merge(graph, *states)

    def evaluated(variables: Variables) -> Any:
        return build(graph_eval, variables, jax.random.key(0))

    def init(key: Any) -> Variables:
        rngs = nnx.Rngs(jax.random.fold_in(key, 1), params=key)
        _, params, stats, _ = nnx.split(make(rngs), *_STATE)
        return Variables(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))

    def apply(variables: Variables, inputs: Any) -> Any:
        return evaluated(variables)(_arrays(inputs))

    def apply_train(
        key: Any, variables: Variables, inputs: Any
    ) -> tuple[Any, Variables]:
        module = build(graph_train, variables, key)
        given = {"rngs": nnx.Rngs(dropout=key)} if takes_streams else {}
        outputs = module(_arrays(inputs), **given)
        stats = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
        return outputs, variables._replace(stats=stats)

    def features(variables: Variables, inputs: Any) -> Any:
        return evaluated(variables).features(_arrays(inputs))

    def extend(variables: Variables, cache: Any, tokens: Any) -> tuple[Any, Any]:
        module: Any = evaluated(variables)
        return module.extend(cache, jnp.asarray(tokens))

    decoding = None if empty is None else Decoding(empty, extend, context)
    return Model(init, apply, apply_train, features, decoding)


def _arrays(inputs: Any) -> Any:
    """Inputs, one array or a tree of them, as JAX's."""
    return jax.tree.map(jnp.asarray, inputs, is_leaf=lambda x: isinstance(x, list))


_STATE = (nnx.Param, nnx.BatchStat, nnx.RngState)


def _streams(key: Any, like: Any) -> Any:
    """Streams like these at their beginning, each with a key of its own."""
    leaves, structure = jax.tree.flatten(like)
    key = jnp.asarray(key)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)

    def one(number: int, leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)  # How often it was drawn from.
        return jax.random.split(jax.random.fold_in(key, number), leaf.shape)

    return jax.tree.unflatten(structure, [one(*pair) for pair in enumerate(leaves)])


def _takes_streams(module: nnx.Module) -> bool:
    parameters = inspect.signature(type(module).__call__).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return anything or "rngs" in parameters


def _refuse_other_state(module: nnx.Module) -> None:
    other = nnx.state(module, nnx.Not(nnx.Any(*_STATE)))
    names = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(other)]
    if names:
        raise ValueError(
            f"the module keeps state besides parameters, batch statistics and random "
            f"streams: {', '.join(names)}; make what changes an argument or a result "
            f"of the call"
        )
