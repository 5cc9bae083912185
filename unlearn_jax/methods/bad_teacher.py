"""Bad teacher: imitate a random network on the forget set, the original elsewhere."""

import jax
import jax.numpy as jnp

from unlearn_jax.data.batch import sample
from unlearn_jax.methods.distil import check_temperature, imitation, lesson
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.descent import begin, optimise
from unlearn_jax.train.fit import choose_fit_loop
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch, PRNGKey, Variables


@entrance()
def bad_teacher(
    learner: Learner,
    *,
    epochs: int = 1,
    learning_rate: float = 1e-4,
    batch_size: int = 256,
    retain_share: float = 0.3,
    temperature: float = 1.0,
    two_phases: bool = False,
) -> Method:
    """Distil from two teachers: a random one on the forget set, the original elsewhere.

    Args:
        learner: Its model is drawn afresh as the incompetent teacher.
        epochs: Passes over the forget set and the retained share together.
        learning_rate: Step size of Adam.
        batch_size: Examples per step.
        retain_share: Part of the retain set that is used, drawn at random (0 to 1).
        temperature: Divides all outputs before the softmax (no unit).
        two_phases: All passes over the forget set first, then those over the share of
            the retain set, each from a fresh Adam; published, both are mixed.

    No label is read. Batch statistics move.

    Cost: epochs × (forget + share × retain) gradients, and as many forward passes.
    Source: Chundawat et al. 2023, arXiv 2205.08096. As published: the divergence is
        averaged over examples and classes, so the scale of its gradient falls with the
        number of classes. ``two_phases`` is the schedule of
        :func:`~unlearn_jax.methods.stochastic_teacher.stochastic_teacher`.
    """
    check_temperature("bad_teacher", temperature)
    if not 0 < retain_share <= 1:
        raise ValueError(f"retain_share must lie in (0, 1], got {retain_share}")
    model = learner.model
    recipe = Recipe(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        optimizer="adam",
        weight_decay=0.0,
        schedule="constant",
        loop=learner.recipe.loop,
    )

    step_loss = imitation(learner, temperature=temperature, by_class=True)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        teacher_key, share_key, order_key = jax.random.split(key, 3)
        loop = choose_fit_loop(learner, request.retain, key, variables)
        kept = _share(share_key, request.retain, retain_share)
        lost = request.forget
        kept_lesson, lost_lesson = (
            lesson(learner, by, data.inputs, temperature=temperature, loop=loop)
            for by, data in ((variables, kept), (model.init(teacher_key), lost))
        )
        of_kept, of_lost = (kept.inputs, kept_lesson), (lost.inputs, lost_lesson)
        if two_phases:
            parts = ((of_lost, lost.weights), (of_kept, kept.weights))
        else:
            joined = jax.tree.map(
                lambda a, b: jnp.concatenate([a, b]), of_kept, of_lost
            )
            parts = ((joined, jnp.concatenate([kept.weights, lost.weights])),)
        at = variables
        for number, (examples, weights) in enumerate(parts):
            own = jax.random.fold_in(order_key, number) if number else order_key
            state = begin(at, recipe)
            at = optimise(
                own, state, examples, weights, step_loss, recipe, loop=loop
            ).variables
        return at

    return stateless(forget)


def _share(key: PRNGKey, data: Batch, share: float) -> Batch:
    """A random part of the examples of positive weight, in an array of fixed size."""
    size = max(1, round(share * data.weights.shape[0]))
    count = jnp.sum(data.weights > 0)
    wanted = jnp.maximum(1, jnp.round(share * count).astype(jnp.int32))
    return sample(key, data, size, wanted)
