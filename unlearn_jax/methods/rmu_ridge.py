"""RMU in closed form: one layer's kernel by ridge regression, not by descent."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.layer_inputs import kernel_at, layer_inputs
from unlearn_jax.data.accumulate import accumulate, present
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.options import check_number
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, PRNGKey, Variables
from unlearn_kernels.precision import EXACT


@entrance()
def rmu_ridge(
    learner: Learner,
    *,
    layer: str,
    length: float = 2.0,
    retain_weight: float = 1.0,
    damping: float = 1e-3,
    batch_size: int = 64,
) -> Method:
    """The minimiser of RMU's loss in one kernel W, all else held.

    With keys k, the inputs of the layer, and h = k W + what the layer does not touch:
    W₀ + (G_f + a G_r + λ)⁻¹ mean_f kᵀ (c u - h), G the means of kᵀ k over positions
    that are asked for. It minimises mean_f ‖h - c u‖² + a mean_r ‖h - h₀‖²
    + λ ‖W - W₀‖². u is drawn as in ``rmu``.

    The model's ``features`` must be h: that layer's results, and what is added to them
    as it is. ``models.stream`` gives those of a transformer, behind a block whose
    ``down`` is the layer.

    Args:
        learner: Model whose features are h; no loss is read.
        layer: Path of the kernel, such as "blocks/1/down/kernel".
        length: c, in the unit of the features.
        retain_weight: a.
        damping: λ over the mean eigenvalue of G_f + a G_r (no unit).
        batch_size: Examples whose keys are held at once.

    Batch statistics stay. Where features are not such a sum the kernel becomes NaN.

    Raises:
        ValueError: an impossible option; and once variables are there, no such kernel,
            or one whose results are not as wide as the features.

    Cost: a forward and a backward pass over both sets, and d³ / 3 for d keys.
    Source: the loss of Li et al. 2024, arXiv 2403.03218, as ridge regression on fixed
        inputs. Differs: one layer instead of three, its minimum instead of some steps
        of Adam, and a term that holds the kernel.
    """
    check_number("rmu_ridge: damping", damping, positive=True)
    model = learner.model
    product = functools.partial(jnp.einsum, precision=EXACT)

    def sums(batch: Batch, variables: Variables, wanted: Any) -> Any:
        batch = present(batch)

        def features(params: Any, inputs: Any) -> Any:
            return model.features(variables._replace(params=params), inputs)

        keys, hidden, slopes = layer_inputs(
            features, variables.params, batch.inputs, layer
        )
        hidden = hidden.reshape(*keys.shape[:2], -1)
        asked = batch.targets >= 0 if hidden.shape[1] > 1 else jnp.ones(keys.shape[:2])
        asked = asked.reshape(keys.shape[:2]).astype(keys.dtype)
        share = asked / jnp.maximum(asked.sum(1, keepdims=True), 1)
        weighted = (share * batch.weights[:, None])[..., None] * keys
        added = jnp.all(jnp.where(asked[..., None] > 0, slopes == 1, True))
        return {
            "gram": product("nti,ntj->ij", weighted, keys),
            "cross": product("nti,nto->io", weighted, wanted[None, None] - hidden),
            "strange": 1 - added.astype(keys.dtype),
        }

    def mean_sums(data: Batch, *given: Any) -> Any:
        mass = jnp.sum(data.weights)
        found = accumulate(sums, data, *given, batch_size=batch_size)
        return tree.scale(1 / jnp.where(mass > 0, mass, 1), found)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        number, kernel = kernel_at(variables.params, layer)
        two = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape[1:]), leaf.dtype),
            request.forget.inputs,
        )
        like = jax.eval_shape(model.features, variables, two)
        if like.shape[-1] != kernel.shape[1]:
            raise ValueError(
                f"{layer} gives {kernel.shape[1]} numbers and the features are "
                f"{like.shape[-1]} wide; expected features that this layer's results "
                "are added to: set model._replace(features=...), see models.stream"
            )
        drawn = jax.random.uniform(key, like.shape[-1:], like.dtype)
        wanted = length * drawn / jnp.sqrt(jnp.sum(jnp.square(drawn)))
        gone = mean_sums(request.forget, variables, wanted)
        kept = mean_sums(request.retain, variables, wanted)
        gram = gone["gram"] + retain_weight * kept["gram"]
        level = damping * jnp.trace(gram) / len(gram)
        level = jnp.where(level > 0, level, 1)
        factor = jnp.linalg.cholesky(
            gram + level * jnp.eye(len(gram), dtype=gram.dtype)
        )
        change = jax.scipy.linalg.cho_solve((factor, True), gone["cross"])
        strange = gone["strange"] + kept["strange"] > 0
        moved = jnp.where(strange, jnp.nan, kernel + change.astype(kernel.dtype))
        leaves, structure = jax.tree.flatten(variables.params)
        leaves[number] = moved
        return variables._replace(params=jax.tree.unflatten(structure, leaves))

    return stateless(forget)
