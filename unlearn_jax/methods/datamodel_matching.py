"""DMM: predict the oracle's outputs by attribution, then fine-tune towards them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.attribution.attribution import Attribution, Evidence, Subsets
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.matching import matching, outputs_of
from unlearn_jax.methods.method import Method, Request, solving
from unlearn_jax.solvers.solution import Report, no_report
from unlearn_jax.train.fit import choose_fit_loop, fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Variables, Weights

Gather = Callable[[PRNGKey, Variables, Batch], Evidence]
"""``(key, original, train) -> evidence`` for an attribution."""

READABLE = ("models", "ensemble")
"""Evidence that can be gathered after training."""


class MatchingState(NamedTuple):
    """Value: what is known before the next request.

    Attributes:
        attribution: State of the attribution, at the original.
        train: The training set as it was prepared, with the weights of what is still
            in: a request's retain batch need not hold the forgotten examples.
    """

    attribution: Any
    train: Batch


@entrance(signed=("multiplier",))
def datamodel_matching(
    learner: Learner,
    *,
    attribution: str = "ekfac_influence",
    multiplier: float = 1.0,
    models: int = 1,
    members: int = 64,
    share: float = 0.5,
    epochs: int = 4,
    learning_rate: float = 1e-4,
    batch_size: int = 512,
    retain_ratio: int = 20,
    forget_copies: int = 5,
) -> Method:
    """Fine-tune towards f(x; θ) − Σ_forgotten wⱼ ∂f(x)/∂wⱼ, the predicted oracle.

    The prediction starts from the model's own outputs, so its randomness is kept.

    Args:
        learner: How models were and are trained.
        attribution: A name in ``ATTRIBUTIONS`` that reads models or an ensemble.
        multiplier: Scales the predicted change (no unit); 1 is the prediction.
        models: Models on all data that the attribution averages over; those beyond
            the original are trained in ``prepare``.
        members: Models on random subsets that are trained in ``prepare``, where the
            attribution reads an ensemble.
        share: Size of a subset, as a share of the training examples.
        epochs: Passes over the matched examples.
        learning_rate: Of Adam, 5 % less with every epoch.
        batch_size: Examples per step.
        retain_ratio: Retained examples that are drawn for each forgotten one.
        forget_copies: How often each forgotten example appears in a pass.

    Batch statistics move. Requests that follow one another add their changes.

    Raises:
        ValueError: an unknown attribution, or one that reads more than can be gathered
            after training; a count that is not positive.

    Cost: prepare, what the attribution takes, and ``members`` and ``models`` − 1
        training runs where it reads them; forget, one prediction, and epochs ×
        (forget_copies + retain_ratio) gradients for each forgotten example.
    Source: Georgiev et al. 2024, arXiv 2410.23232. Differs: any attribution, linear in
        the weights and never stored as examples × examples × outputs; see
        :func:`unlearn_jax.methods.matching.matching`.
    """
    if attribution not in ATTRIBUTIONS:
        raise ValueError(
            f"there is no attribution {attribution!r}; choose from "
            f"{', '.join(ATTRIBUTIONS)}"
        )
    entry = ATTRIBUTIONS[attribution]
    unknown = [field for field in entry.reads if field not in READABLE]
    if unknown:
        able = [
            name for name, e in ATTRIBUTIONS.items() if set(e.reads) <= set(READABLE)
        ]
        raise ValueError(
            f"attribution {attribution!r} reads {', '.join(unknown)}, which only "
            f"training itself can keep; choose from {', '.join(able)}"
        )
    if min(models, members) < 1 or not 0 < share < 1:
        raise ValueError(
            f"expected at least one model and one member and 0 < share < 1, got "
            f"models={models}, members={members}, share={share}"
        )

    def gather(key: PRNGKey, original: Variables, train: Batch) -> Evidence:
        model_key, member_key = jax.random.split(key)
        found = jax.tree.map(lambda leaf: leaf[None], original)
        if models > 1:
            more = _train_all(
                jax.random.split(model_key, models - 1), learner, train, None
            )
            found = jax.tree.map(lambda *x: jnp.concatenate(x), found, more)
        ensemble = None
        if "ensemble" in entry.reads:
            mask_key, fit_key = jax.random.split(member_key)
            masks = _halves(mask_key, members, share, train.weights)
            keys = jax.random.split(fit_key, members)
            ensemble = Subsets(masks, _train_all(keys, learner, train, masks))
        return Evidence(found, ensemble=ensemble)

    return match_with(
        learner,
        entry.factory(learner),
        gather,
        multiplier=multiplier,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        retain_ratio=retain_ratio,
        forget_copies=forget_copies,
    )


def match_with(
    learner: Learner,
    attribution: Attribution,
    gather: Gather,
    *,
    multiplier: float = 1.0,
    epochs: int = 4,
    learning_rate: float = 1e-4,
    batch_size: int = 512,
    retain_ratio: int = 20,
    forget_copies: int = 5,
) -> Method:
    """:func:`datamodel_matching` with any attribution and evidence from anywhere."""
    match = matching(
        learner,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        retain_ratio=retain_ratio,
        forget_copies=forget_copies,
    )

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> MatchingState:
        gather_key, attribution_key = jax.random.split(key)
        evidence = gather(gather_key, original, train)
        state = attribution.prepare(attribution_key, evidence, train)
        return MatchingState(state, jax.tree.map(jnp.asarray, train))

    def reported(
        key: PRNGKey, state: MatchingState, variables: Variables, request: Request
    ) -> tuple[Variables, MatchingState, Report]:
        def targets(queries: Batch) -> tuple[Array, Report]:
            return reported_outputs(
                learner,
                attribution,
                state,
                variables,
                request,
                queries,
                multiplier=multiplier,
            )

        moved, told = match(key, variables, request, targets)
        left = state.train._replace(weights=jnp.asarray(request.retain.weights))
        return moved, state._replace(train=left), told

    made = solving(reported, prepare)
    return made if attribution.reported else made._replace(reported=None)


def predicted_outputs(
    learner: Learner,
    attribution: Attribution,
    state: MatchingState,
    variables: Variables,
    request: Request,
    queries: Batch,
    *,
    multiplier: float = 1.0,
) -> Array:
    """f(x; θ) plus the predicted change: the "datamodel direct" of the paper.

    Args:
        learner: Only its model is used.
        attribution: What predicts.
        state: From ``prepare``.
        variables: The model whose randomness the prediction keeps.
        request: What is forgotten.
        queries: Where to predict.
        multiplier: Scales the change (no unit).

    Returns:
        (q, k); with nothing to forget, the model's own outputs.
    """
    given = learner, attribution, state, variables, request, queries
    return reported_outputs(*given, multiplier=multiplier)[0]


def reported_outputs(
    learner: Learner,
    attribution: Attribution,
    state: MatchingState,
    variables: Variables,
    request: Request,
    queries: Batch,
    *,
    multiplier: float = 1.0,
) -> tuple[Array, Report]:
    """:func:`predicted_outputs`, and what the attribution's solver tells."""
    loop = choose_fit_loop(learner, request.retain, variables)

    own = outputs_of(learner, variables, queries.inputs, loop=loop)
    removed = request.retain.weights - state.train.weights
    given = state.attribution, state.train, queries, removed
    if attribution.reported is not None:
        change, told = attribution.reported(*given)
    else:
        change, told = attribution.change(*given), no_report()
    return own + multiplier * change, told


def _halves(key: PRNGKey, members: int, share: float, weights: Weights) -> Array:
    """Random subsets of the examples that have weight, one row for each member."""
    present = weights > 0
    wanted = jnp.maximum(1, jnp.round(share * jnp.sum(present)))
    drawn = jax.random.uniform(key, (members, len(weights)), jnp.float32)
    ranks = jnp.argsort(jnp.argsort(jnp.where(present[None], drawn, 2.0)))
    return ((ranks < wanted) & present[None]).astype(weights.dtype)


def _train_all(keys: Array, learner: Learner, train: Batch, masks: Any) -> Variables:
    def one(key: PRNGKey, mask: Any) -> Variables:
        weights = train.weights if mask is None else train.weights * mask
        return fit(key, learner, train._replace(weights=weights))

    return jax.lax.map(lambda pair: one(*pair), (keys, masks))
