"""Low-rank adapters: a model whose only parameters are what is added to its kernels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.models.model import Decoding, Model
from unlearn_jax.types import Params, Path, PRNGKey, Variables


class Lora(NamedTuple):
    """Description: a model with adapters, and the ways to it and back.

    Attributes:
        model: Its parameters are the adapters alone, ``{"blocks/0/…/kernel": {"down":
            (…, i, r), "up": (…, r, o)}}``; what they are added to rides in the
            statistics, so that nothing differentiates, decays or moves it.
        begin: ``(key, variables of the plain model) -> variables of this one``, which
            compute the same, since "up" is zero.
        merge: Variables of this model to those of the plain one, adapters added.
    """

    model: Model
    begin: Callable[[Any, Variables], Variables]
    merge: Callable[[Variables], Variables]


def lora(
    model: Model,
    where: Callable[[Path], bool],
    *,
    rank: int = 8,
    alpha: float = 16.0,
    first: int = 0,
) -> Lora:
    """Adapters on chosen kernels: W + (alpha / rank) · down · up.

    Every method, curvature and attribution that is given ``lora(...).model`` and
    variables from ``begin`` works on the adapters; ``merge`` gives the plain model
    that they stand for.

    Args:
        model: The plain model.
        where: Of a path such as ``("blocks", 0, "attention", "query", "kernel")``:
            which kernels get one. The last two axes are in and out; axes before them,
            such as that of stacked blocks, have an adapter for each of their entries.
        rank: r, columns of "down".
        alpha: Over the rank, the factor before the product.
        first: Of stacked blocks, the lowest that gets adapters: those below frozen
            ones would only be carried along.

    Raises:
        ValueError: a rank below 1, a negative ``first``; and from ``model.init`` and
            ``begin``, no kernel is chosen, one without two axes, or with ``first`` one
            that is not of more blocks than that.

    Cost: the model's own forward and backward pass and one product of the size of each
        adapted kernel; what is saved is memory, of optimisers and of curvature. Since
        kernels are merged before they are used, an example's gradient in an adapter is
        formed from that in its kernel (``curvature.per_example.formed_whole``).
    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021.
        Differs: "down" is normal with variance 1 / i; no dropout.
    """
    if rank < 1:
        raise ValueError(f"lora got rank {rank}, expected at least 1")
    if first < 0:
        raise ValueError(
            f"lora got first {first}, expected at least 0: it counts the blocks from "
            "the bottom that get no adapter"
        )

    def begin(key: PRNGKey, variables: Variables) -> Variables:
        chosen = [
            (_name(path), leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(variables.params)
            if where(tree.path_names(path))
        ]
        flat = [name for name, leaf in chosen if leaf.ndim < 2]
        if flat or not chosen:
            what = f"{flat[0]}, which has one axis" if flat else "no parameter"
            raise ValueError(
                f"lora was to adapt {what}; expected kernels of two axes or more: "
                f"choose by paths such as "
                f"{_name(jax.tree_util.tree_leaves_with_path(variables.params)[0][0])}"
            )
        short = [name for name, leaf in chosen if first and _blocks(leaf) <= first]
        if short:
            raise ValueError(
                f"lora was to begin at block {first} of {short[0]}, which has not so "
                "many; expected stacked blocks: build the model with scan=True"
            )
        keys = jax.random.split(key, len(chosen))
        adapters = {
            name: _adapter(one, leaf[first:] if first else leaf, rank)
            for one, (name, leaf) in zip(keys, chosen, strict=True)
        }
        return Variables(adapters, {"base": variables.params, "stats": variables.stats})

    def merge(variables: Variables) -> Variables:
        adapters, base = variables.params, variables.stats["base"]

        def one(path: Any, kernel: Any) -> Any:
            own = adapters.get(_name(path))
            if own is None:
                return kernel
            added = (alpha / rank) * jnp.matmul(own["down"], own["up"])
            added = added.astype(kernel.dtype)
            if not first:
                return kernel + added
            return jnp.concatenate([kernel[:first], kernel[first:] + added])

        params = jax.tree_util.tree_map_with_path(one, base)
        return Variables(params, variables.stats["stats"])

    def init(key: PRNGKey) -> Variables:
        return begin(jax.random.fold_in(key, 1), model.init(key))

    def apply_train(
        key: Any, variables: Variables, inputs: Any
    ) -> tuple[Any, Variables]:
        outputs, after = model.apply_train(key, merge(variables), inputs)
        stats = {**variables.stats, "stats": after.stats}
        return outputs, Variables(variables.params, stats)

    adapted = Model(
        init,
        lambda variables, inputs: model.apply(merge(variables), inputs),
        apply_train,
        lambda variables, inputs: model.features(merge(variables), inputs),
        _decoding(model, merge),
    )
    return Lora(adapted, begin, merge)


def _blocks(kernel: Any) -> int:
    """Of a stacked kernel; 0 of one that is not."""
    return kernel.shape[0] if kernel.ndim > 2 else 0


def _adapter(key: PRNGKey, kernel: Any, rank: int) -> Params:
    *stacked, fan_in, fan_out = kernel.shape
    down = jax.random.normal(key, (*stacked, fan_in, rank), kernel.dtype)
    return {
        "down": down * fan_in**-0.5,
        "up": jnp.zeros((*stacked, rank, fan_out), kernel.dtype),
    }


def _decoding(model: Model, merge: Callable[[Variables], Variables]) -> Decoding | None:
    if model.decoding is None:
        return None
    plain = model.decoding

    def extend(variables: Variables, cache: Any, tokens: Any) -> tuple[Any, Any]:
        return plain.extend(merge(variables), cache, tokens)

    # Merged once, not at every token.
    return plain._replace(extend=extend, settled=lambda own: (plain, merge(own)))


def _name(path: Any) -> str:
    return "/".join(map(str, tree.path_names(path)))
