"""Selective Amnesia where it was published first: a variational autoencoder of labels.

The surrogate, the curvature and the replay are those of ``amnesia``; the loss is the
negative evidence, exact given the noise of the codes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from unlearn_jax.generators.evidence import coded, decoded, evidence_objective
from unlearn_jax.loop import tracing
from unlearn_jax.methods.erasing.amnesia import replaced
from unlearn_jax.methods.erasing.curvature import check_kind, curvature
from unlearn_jax.methods.erasing.newton import Solve, check_solve, newton_steps
from unlearn_jax.methods.erasing.rollouts import repeated
from unlearn_jax.methods.erasing.tune import left_out, picked
from unlearn_jax.models.variational import Variational
from unlearn_jax.options import check_number, checked
from unlearn_jax.types import Array, Batch, PRNGKey, Variables

SOLVE = Solve(weight=100.0, steps=5, kept=2000)


class Labels(NamedTuple):
    """Value: what is erased, and what stays.

    Attributes:
        forget: (f,) labels.
        retain: (r,) labels.
    """

    forget: Int[Array | np.ndarray, " f"]
    retain: Int[Array | np.ndarray, " r"]


@checked()
def amnesia_codes(
    key: PRNGKey,
    autoencoder: Variational,
    variables: Variables,
    labels: Labels,
    *,
    kind: str = "diagonal",
    weight: Any = 100.0,
    replay_weight: float = 1.0,
    steps: int = 10_000,
    learning_rate: float = 1e-4,
    batch_size: int = 256,
    memories: int = 5000,
    points: int = 50_000,
) -> Variables:
    """Uniform noise under the forgotten label + λ/2 ‖θ − θ*‖²_F + γ replay.

    No image is read: what is to stay is drawn by the original itself.

    Args:
        key: Draws memories, surrogates and the noise of codes.
        autoencoder: Whose both halves are tuned.
        variables: Of the original, θ*.
        labels: What goes and what stays.
        kind: Of F, see ``curvature.curvature``.
        weight: λ, may be traced; 0 computes no F.
        replay_weight: γ; 0: curvature alone holds the rest.
        steps: Of Adam.
        learning_rate: Of Adam.
        batch_size: Of surrogates, and of memories, in a step.
        memories: Images drawn for retained labels.
        points: Memories, drawn from these with noise anew, that F is found from.

    Raises:
        ValueError: an unknown kind, labels that there are not, none, or one that is to
            go and to stay.

    Cost: a gradient for each of ``points`` (EK-FAC: two passes), then one or two
        gradients an image of a step and one product with F.
    Source: Heng and Soh, Selective Amnesia, 2023, arXiv 2305.10120; sizes of its
        experiment on MNIST. Differs: λ / 2 (the released code has λ); F is of retained
        labels alone, and of the bound at one draw of the code.
    """
    check_kind(kind)
    check_number("amnesia_codes: weight", weight, least=0.0)
    _check_labels(autoencoder, labels)
    objective = evidence_objective(autoencoder)
    first, second, third = jax.random.split(key, 3)
    memory = recalled_codes(first, autoencoder, variables, labels, memories)
    matrix = None
    if not left_out(weight):
        data = recoded(second, autoencoder, memory, points)
        matrix = curvature(kind, objective, variables.params, data)

    def blank(key: Any, given: Any) -> Batch:
        return surrogate_codes(key, autoencoder, given[0], batch_size)

    def kept(key: Any, given: Any) -> Batch:
        return recoded(key, autoencoder, given[1], batch_size)

    moved = replaced(
        third,
        objective,
        variables.params,
        blank,
        kept,
        (jnp.asarray(labels.forget), memory),
        matrix,
        weight=weight,
        replay_weight=replay_weight,
        steps=steps,
        learning_rate=learning_rate,
    )
    return variables._replace(params=moved)


@checked()
def amnesia_codes_newton(
    key: PRNGKey,
    autoencoder: Variational,
    variables: Variables,
    labels: Labels,
    *,
    solve: Solve = SOLVE,
    memories: int = 2000,
) -> Variables:
    """The same without replay, by few Gauss-Newton steps (``newton.newton_steps``).

    Args:
        key: As of :func:`amnesia_codes`.
        autoencoder: As there.
        variables: As there.
        labels: As there.
        solve: Its steps; their points are surrogates.
        memories: Images that the original draws, whose Fisher holds the rest.

    Raises:
        ValueError: as ``newton.check_solve`` and :func:`amnesia_codes`.
    """
    check_solve(solve)
    _check_labels(autoencoder, labels)
    objective = evidence_objective(autoencoder)
    first, second, third, last = jax.random.split(key, 4)
    memory = recalled_codes(first, autoencoder, variables, labels, memories)
    data = recoded(second, autoencoder, memory, solve.kept)
    matrix = curvature(solve.kind, objective, variables.params, data)
    forgets = jnp.asarray(labels.forget)
    pool = surrogate_codes(third, autoencoder, forgets, 4 * solve.points)
    moved = newton_steps(last, objective, variables.params, pool, matrix, solve)
    return variables._replace(params=moved)


def recalled_codes(
    key: PRNGKey,
    autoencoder: Variational,
    variables: Variables,
    labels: Labels,
    count: int,
) -> Batch:
    """Images that the original draws for retained labels in turn, with these."""
    told = repeated(labels.retain, count)
    images = decoded(key, autoencoder, variables, told)
    return Batch(images, told, jnp.ones(count, images.dtype))


def surrogate_codes(
    key: PRNGKey, autoencoder: Variational, forgets: Array, count: int
) -> Batch:
    """Uniform noise from −1 to 1 under the forgotten labels; the encoder sees it."""
    first, second = jax.random.split(key)
    shape = (count, *autoencoder.image_shape)
    blank = jax.random.uniform(first, shape, minval=-1, maxval=1)
    data = Batch(blank, repeated(forgets, count), jnp.ones(count, blank.dtype))
    return coded(second, autoencoder, data)


def recoded(key: PRNGKey, autoencoder: Variational, memory: Batch, count: int) -> Batch:
    """``count`` of the images, each with noise of its code drawn anew."""
    first, second = jax.random.split(key)
    return coded(second, autoencoder, picked(first, memory, count))


def _check_labels(autoencoder: Variational, labels: Labels) -> None:
    """Refuse what the autoencoder has no embedding of; not while being traced."""
    if tracing(labels):
        return
    lost, kept = (np.unique(np.asarray(part)) for part in labels)
    for name, part in (("forget", lost), ("retain", kept)):
        if not part.size or part[0] < 0 or part[-1] >= autoencoder.classes:
            raise ValueError(
                f"got {part.tolist()} as labels to {name}, expected at least one, from "
                f"0 to {autoencoder.classes - 1}: give labels that it was trained with"
            )
    both = np.intersect1d(lost, kept)
    if both.size:
        raise ValueError(
            f"label {both[0]} is to be forgotten and to be retained: leave it out of "
            "one of them"
        )
