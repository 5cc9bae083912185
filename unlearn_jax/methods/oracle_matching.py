"""Matches the outputs of a retrained model: what matching could reach at best."""

import jax

from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.matching import matching, outputs_of
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.fit import choose_fit_loop, fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Variables


@entrance()
def oracle_matching(
    learner: Learner,
    *,
    epochs: int = 5,
    learning_rate: float = 5e-4,
    batch_size: int = 512,
    retain_ratio: int = 3,
    forget_copies: int = 1,
) -> Method:
    """Retrain, then fine-tune the original towards the retrained model's outputs.

    A skyline, not a method to use: it needs the oracle that it imitates. Where it
    fails, the fine-tune fails, not the prediction of the oracle.

    Args:
        learner: How the oracle is trained.
        epochs: Passes over the matched examples.
        learning_rate: Of Adam, 5 % less with every epoch.
        batch_size: Examples per step.
        retain_ratio: Retained examples that are drawn for each forgotten one.
        forget_copies: How often each forgotten example appears in a pass.

    Batch statistics move.

    Raises:
        ValueError: a count that is not positive.

    Cost: one training run, and epochs × (forget_copies + retain_ratio) gradients for
        each forgotten example.
    Source: Georgiev et al. 2024, arXiv 2410.23232, oracle matching, with the defaults
        of its released function; the runs on Living-17 have ``epochs=2,
        learning_rate=1e-4, retain_ratio=20``. Differs: one oracle, as in those runs,
        where the function takes the mean of ten, which has not a model's randomness;
        and see :func:`unlearn_jax.methods.matching.matching`.
    """
    match = matching(
        learner,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        retain_ratio=retain_ratio,
        forget_copies=forget_copies,
    )

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        # Its own stream: the oracle shares no randomness with the fine-tune.
        oracle = fit(jax.random.fold_in(key, 1), learner, request.retain)
        loop = choose_fit_loop(learner, request.retain, key, variables)

        def outputs(batch: Batch) -> tuple[Array, None]:
            return outputs_of(learner, oracle, batch.inputs, loop=loop), None

        moved, _ = match(jax.random.fold_in(key, 0), variables, request, outputs)
        return moved

    return stateless(forget)
