"""Any method on some of the parameters: the others are held where they are."""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Bool, PyTree

from unlearn_jax import tree
from unlearn_jax.methods.guard import guarded
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.models.model import Model
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables

Mask = PyTree[Bool[Array, "..."]]

_MASK = 7  # The method itself has the key as it came.


def largest(sizes: Params, count: Any) -> Mask:
    """The ``count`` largest entries, by one ranking over all leaves.

    Args:
        sizes: Tree of real arrays.
        count: How many to select (may be traced); of equal ones those that come first
            in the order of the leaves.

    Returns:
        Tree of booleans like ``sizes``.
    """
    flat, _ = jax.flatten_util.ravel_pytree(sizes)
    order = jnp.argsort(flat, descending=True, stable=True)
    chosen = jnp.zeros(flat.shape, bool).at[order].set(jnp.arange(flat.size) < count)
    leaves, structure = jax.tree.flatten(sizes)
    ends = [sum(leaf.size for leaf in leaves[: i + 1]) for i in range(len(leaves) - 1)]
    parts = zip(jnp.split(chosen, ends), leaves, strict=True)
    return jax.tree.unflatten(
        structure, [part.reshape(leaf.shape) for part, leaf in parts]
    )


def under_mask(
    factory: Callable[..., Method],
    learner: Learner,
    choose: Callable[[PRNGKey, Variables, Request], tuple[Params, Mask]],
    *,
    leaky: bool = False,
    **options: Any,
) -> Method:
    """Any method, moving only the parameters that a mask selects at the request.

    The mask travels to the method's own steps with the batch statistics, so that it is
    an argument of every compiled loop. ``prepare`` knows no request, so no mask.

    Args:
        factory: Builds the method from a learner: ``random_labels``, ``finetune``, …
        learner: Model, loss and recipe.
        choose: ``(key, variables, request)`` to where the method starts, and what it
            may move from there.
        leaky: Mask the gradients alone, so that weight decay and l2 still move the
            rest. By default the rest does not move at all.
        **options: Hyper-parameters of the method.

    Batch statistics move if the method moves them.

    Raises:
        ValueError: a method that reads a trace.

    Cost: the method's, and what ``choose`` does.
    """
    masked = learner._replace(model=_masked_model(learner.model, leaky=leaky))
    method = factory(masked, **options)
    if method.reads_trace:
        raise ValueError(
            "a mask was asked for a method that reads a trace, whose checkpoints have "
            "none; expected one that does not: take another method"
        )

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Any:
        everything = jax.tree.map(lambda p: jnp.ones(p.shape, bool), original.params)
        return method.prepare(key, _dress(original, everything), train)

    def forget(
        key: PRNGKey, state: Any, variables: Variables, request: Request
    ) -> tuple[Variables, Any]:
        start, mask = choose(jax.random.fold_in(key, _MASK), variables, request)
        dressed = _dress(variables._replace(params=start), mask)
        moved, state = method.forget(key, state, dressed, request)
        params = moved.params
        if not leaky:
            params = tree.where(mask, params, start)
        return Variables(params, moved.stats["stats"]), state

    return guarded(learner, Method(prepare, forget))


def _dress(variables: Variables, mask: Any) -> Variables:
    """Variables of the masked model: the mask and what it holds ride in the stats."""
    riding = {"stats": variables.stats, "mask": mask, "held": variables.params}
    return Variables(variables.params, riding)


def _masked_model(model: Model, *, leaky: bool) -> Model:
    """The same outputs, but a gradient of zero outside of the mask.

    Strictly, what is outside is read from where it is held, so whatever an optimiser
    does to it there has no effect until it is put back.
    """

    def undress(variables: Variables) -> Variables:
        riding = variables.stats
        held = jax.lax.stop_gradient(variables.params) if leaky else riding["held"]
        params = tree.where(riding["mask"], variables.params, held)
        return Variables(params, riding["stats"])

    def init(key: PRNGKey) -> Variables:
        fresh = model.init(key)
        everything = jax.tree.map(lambda p: jnp.ones(p.shape, bool), fresh.params)
        return _dress(fresh, everything)

    def apply_train(key: Any, variables: Variables, inputs: Any) -> Any:
        outputs, after = model.apply_train(key, undress(variables), inputs)
        stats = {**variables.stats, "stats": after.stats}
        return outputs, Variables(variables.params, stats)

    return Model(
        init,
        lambda variables, inputs: model.apply(undress(variables), inputs),
        apply_train,
        lambda variables, inputs: model.features(undress(variables), inputs),
    )
