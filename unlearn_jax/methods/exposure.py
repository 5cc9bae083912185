"""A backdoor is exposed by unlearning what is clean, and removed in closed form."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax.curvature.layers import layers_of
from unlearn_jax.data.accumulate import collect
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.train.descent import begin, descend, steps_per_pass
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, Batch, PRNGKey, Variables


class Absorbed(NamedTuple):
    """Value: where predictions go.

    Attributes:
        label: The class that most examples are put in.
        share: Of the examples, 0 to 1.
    """

    label: Int[np.ndarray, ""]
    share: Float[np.ndarray, ""]


def exposures(
    key: PRNGKey,
    learner: Learner,
    variables: Variables,
    clean: Batch,
    *,
    epochs: int = 20,
    learning_rate: float = 1e-5,
    batch_size: int = 128,
    weight_decay: float = 5e-4,
    goal: float | None = None,
) -> Iterator[Variables]:
    """The model after each pass up the loss of clean examples, until it knows nothing.

    What a trigger leads to rests on other features than the classes do, and stays: in
    the end one class absorbs all predictions, and it is the one that the trigger stands
    for (:func:`absorbed`).

    Args:
        key: Order of the examples.
        learner: Model and loss.
        variables: The suspect.
        clean: Examples that one trusts, a hundredth of a training set.
        epochs: Passes, at most.
        learning_rate: Of Adam, published for a ResNet-18.
        batch_size: Examples per step.
        weight_decay: Of Adam, on the parameters.
        goal: End after the first pass that leaves at most this share of ``clean`` right
            (0 to 1); None: chance, one over the number of classes.

    Batch statistics stay: steps run in evaluation mode.

    Raises:
        ValueError: no example in ``clean``, or numbers out of range; when the first
            model is asked for.

    Cost: epochs × clean examples gradients.
    Source: the exposure of arXiv 2410.19427 (EBYD). Its code clips gradients before
        they are computed, which does nothing, and never ends at its goal; ``goal=0.0``
        and no clipping is what it runs. Its steps are in evaluation mode as here, since
        the net is left in it by the first evaluation. Differs: the goal holds.
    """
    check_whole("exposures: epochs", epochs)
    check_number("exposures: learning_rate", learning_rate, positive=True)
    clean = jax.tree.map(jnp.asarray, clean)
    if not bool(jnp.any(clean.weights > 0)):
        raise ValueError(
            "exposures got no clean example that has weight, expected some to unlearn: "
            "give a hundredth of the training set"
        )
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer="adam",
        weight_decay=weight_decay,
        schedule="constant",
    )

    def up(key: Any, params: Any, stats: Any, examples: Any, weights: Any) -> Any:
        del key
        objective = bind(learner.model, stats, learner.loss)
        inputs, targets = examples
        return -objective.risk(params, Batch(inputs, targets, weights)), stats

    @jax.jit
    def one_pass(key: PRNGKey, state: Any, clean: Batch) -> tuple[Any, Array, Array]:
        state = descend(
            key,
            state,
            (clean.inputs, clean.targets),
            clean.weights,
            up,
            recipe,
            total_steps=epochs * steps_per_pass(clean.weights, batch_size),
        )
        outputs = learner.model.apply(state.variables, clean.inputs)
        right = (outputs.argmax(-1) == clean.targets) & (clean.weights > 0)
        share = jnp.sum(right) / jnp.sum(clean.weights > 0)
        return state, share, jnp.asarray(1 / outputs.shape[-1])

    state = begin(variables, recipe)
    for epoch in range(epochs):
        state, right, chance = one_pass(jax.random.fold_in(key, epoch), state, clean)
        yield state.variables
        if float(right) <= (float(chance) if goal is None else goal):
            return


def absorbed(outputs: Any) -> Absorbed:
    """The class that most of the outputs (n, k) are highest in.

    Raises:
        ValueError: no outputs of two classes or more.
    """
    outputs = np.asarray(outputs)
    if outputs.ndim != 2 or not len(outputs) or outputs.shape[1] < 2:
        raise ValueError(
            f"absorbed got outputs of shape {outputs.shape}, expected (examples, "
            "classes) of at least one example and two classes"
        )
    counts = np.bincount(outputs.argmax(1), minlength=outputs.shape[1])
    return Absorbed(
        np.asarray(counts.argmax()), np.asarray(counts.max() / len(outputs))
    )


def clean_head(
    learner: Learner, variables: Variables, clean: Batch, *, damping: float = 1e-3
) -> Variables:
    """The last linear map, solved anew so that clean examples get what they got.

    W = (HᵀH/n + damping · tr(HᵀH/nf) I)⁻¹ HᵀZ/n, with features H (n, f) and outputs Z
    of the suspect on clean examples, both less their means. Directions of features that
    clean examples do not use, such as that of a trigger, get no weight.

    Args:
        learner: Its model ends with a kernel (f, k), and maybe a bias (k,).
        variables: The suspect.
        clean: Examples that one trusts; labels are not read.
        damping: Of the ridge, over the mean variance of a feature (no unit).

    Raises:
        ValueError: a damping that is not positive, fewer than two examples, or a last
            layer of another form.

    Cost: a forward pass, and one Cholesky factor of f × f entries.
    Source: no single one; the linear removal beside arXiv 2410.19427.
    """
    check_number("clean_head: damping", damping, positive=True)
    model = learner.model
    clean = jax.tree.map(jnp.asarray, clean)
    there = np.flatnonzero(np.asarray(clean.weights) > 0)
    if len(there) < 2:
        raise ValueError(
            f"clean_head got {len(there)} clean examples, expected two or more: one "
            "has no direction"
        )
    inputs = jax.tree.map(lambda leaf: leaf[there], clean.inputs)
    number = layers_of(model.apply, variables, inputs)
    depth = max(jax.tree.leaves(number), default=-1)
    features, outputs = (
        np.asarray(collect(lambda x, at, f=f: f(at, x), inputs, variables), np.float64)
        for f in (model.features, model.apply)
    )
    shapes = [
        leaf.shape
        for layer, leaf in zip(
            jax.tree.leaves(number.params),
            jax.tree.leaves(variables.params),
            strict=True,
        )
        if layer == depth
    ]
    f, k = features.shape[1], outputs.shape[1]
    if (f, k) not in shapes or set(shapes) - {(f, k), (k,)} or len(shapes) > 2:
        raise ValueError(
            f"clean_head found parameters of shapes {shapes} in the last layer, "
            f"expected a kernel {(f, k)} and at most a bias {(k,)}: take a model that "
            "is head(features(inputs))"
        )
    centre, middle = features.mean(0), outputs.mean(0)
    hidden, told = features - centre, outputs - middle
    gram = hidden.T @ hidden / len(hidden)
    ridge = damping * max(np.trace(gram) / f, np.finfo(np.float64).tiny)
    kernel = np.linalg.solve(gram + ridge * np.eye(f), hidden.T @ told / len(hidden))
    fresh = {(f, k): kernel, (k,): middle - centre @ kernel}
    if (k,) not in shapes:
        fresh[f, k] = np.linalg.solve(
            features.T @ features / len(features) + ridge * np.eye(f),
            features.T @ outputs / len(features),
        )
    params = jax.tree.map(
        lambda layer, leaf: (
            jnp.asarray(fresh[leaf.shape], leaf.dtype) if layer == depth else leaf
        ),
        number.params,
        variables.params,
    )
    return variables._replace(params=params)
