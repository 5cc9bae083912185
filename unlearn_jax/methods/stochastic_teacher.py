"""Stochastic teacher: erase by a random network, then reconstruct what remains."""

import jax

from unlearn_jax.methods.distil import check_temperature, imitation, lesson
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.descent import begin, optimise
from unlearn_jax.train.fit import choose_fit_loop
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import PRNGKey, Variables


@entrance()
def stochastic_teacher(
    learner: Learner,
    *,
    epochs: int = 1,
    learning_rate: float = 1e-4,
    batch_size: int = 256,
    imitate: float = 1.0,
    temperature: float = 1.0,
) -> Method:
    """Imitate a random network on the forget set; afterwards learn the retain set.

    The first phase descends on KL(random network ‖ model) on the forget set, the second
    on loss + imitate · KL(original ‖ model) on the retain set, each from a fresh Adam.

    Args:
        learner: Its model is drawn afresh as the first teacher; its loss takes class
            indices.
        epochs: Passes of each phase; published, one.
        learning_rate: Step size of Adam.
        batch_size: Examples per step.
        imitate: Weight of the original in the second phase (no unit); 0 for labels
            alone.
        temperature: Divides all outputs before the softmax of a divergence (no unit).

    Batch statistics move.

    Raises:
        ValueError: a temperature of zero.

    Cost: epochs × all examples gradients, and as many forward passes.
    Source: Zhang et al. 2023, arXiv 2308.14322, by its abstract: a random teacher for
        one pass, then reconstruction. No code was released; the losses are those of
        :func:`~unlearn_jax.methods.bad_teacher.bad_teacher` as means over examples,
        whose ``two_phases`` is the same schedule without labels.
    """
    check_temperature("stochastic_teacher", temperature)
    recipe = Recipe(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        optimizer="adam",
        weight_decay=0.0,
        schedule="constant",
        loop=learner.recipe.loop,
    )
    erase = imitation(learner, temperature=temperature)
    rebuild = imitation(learner, temperature=temperature, weight=imitate)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        teacher_key, erase_key, rebuild_key = jax.random.split(key, 3)
        lost, kept = request.forget, request.retain
        loop = choose_fit_loop(learner, kept, key, variables)
        told, own = (
            lesson(learner, by, data.inputs, temperature=temperature, loop=loop)
            for by, data in ((learner.model.init(teacher_key), lost), (variables, kept))
        )
        at = variables
        for order, step_loss, data, examples in (
            (erase_key, erase, lost, (lost.inputs, told)),
            (rebuild_key, rebuild, kept, (kept.inputs, own, kept.targets)),
        ):
            state = begin(at, recipe)
            at = optimise(
                order, state, examples, data.weights, step_loss, recipe, loop=loop
            ).variables
        return at

    return stateless(forget)
