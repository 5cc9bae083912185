"""LAF: move features off what the forget set looks like, without any label."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.loop import fori_loop
from unlearn_jax.methods.autoencoders import AUTOENCODERS
from unlearn_jax.methods.centres import features_of, unit
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.last_layers import finetune_last
from unlearn_jax.methods.method import Method, Request, chain
from unlearn_jax.train.descent import StepLoss, TrainState, begin, descend, shuffled
from unlearn_jax.train.fit import weighted_mean
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables


@entrance(zero=("repair_epochs",))
def laf(
    learner: Learner,
    *,
    autoencoder: str = "variational",
    latent: int = 8,
    epochs: int = 20,
    extract_rate: float = 5e-5,
    align_rate: float = 1e-4,
    tau: float = 5.0,
    batch_size: int = 32,
    repair_epochs: int = 0,
    repair_rate: float = 0.01,
) -> Method:
    """Fit features of the retain set, unfit those of the forget set, stay aligned.

    With h an autoencoder of the original's features on all training data, h_f one on
    the forget set, and d(r) = ‖h(r) − r‖², each pair of steps descends by Adam on the
    mean of exp(d_h / (d_h + 1)) over a retained batch less that of exp(d_f / (d_f + 1))
    over one to forget; then on the mean over a retained batch of 1 − cos(r, r₀) less
    log Σ exp((1 − cos(r, r₀)) / τ) over one to forget, r₀ the original's features.

    Args:
        learner: Only its model; in the repair its loss and recipe too.
        autoencoder: "variational", as published, or "linear", of least squared error in
            closed form, the control.
        latent: Codes of an autoencoder; fewer than features. 16 for a ResNet-18.
        epochs: Passes over the smaller set.
        extract_rate: Of Adam in the first kind of step.
        align_rate: Of Adam in the second.
        tau: τ; 20 for classes and noisy labels.
        batch_size: Examples of each set in a step.
        repair_epochs: Passes over the labelled retain set for the last layer alone
            (LAF+R); 0 for LAF.
        repair_rate: Their learning rate.

    No label is read but in the repair. The model runs in evaluation mode: batch
    statistics stay.

    Returns:
        Method; its state is the autoencoder of all training data.

    Raises:
        ValueError: an unknown ``autoencoder``, or ``tau`` of zero; from ``prepare``, no
            fewer codes than features.

    Cost: prepare, a forward pass over the training set and ten passes of a small net on
        its features; forget, the same for the forget set and epochs × 4 × forget
        examples gradients. Loops run on the device.
    Source: Shen et al. 2024, arXiv 2404.00506, with sizes and rates of its code for
        small nets. Differs: means over batches, not sums; reconstructions are linear,
        where released code has a sigmoid; codes are their means when a distance is
        taken.
    """
    if autoencoder not in AUTOENCODERS:
        raise ValueError(
            f"autoencoder {autoencoder!r} is unknown; choose from "
            f"{', '.join(AUTOENCODERS)}"
        )
    if tau == 0:
        raise ValueError("laf: tau must be positive, got 0: raise it")
    kind = AUTOENCODERS[autoencoder]
    extract, align = (
        Recipe(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=rate,
            optimizer="adam",
            weight_decay=0.0,
            schedule="constant",
        )
        for rate in (extract_rate, align_rate)
    )
    leave = _leaving(learner, kind.reconstruct)
    stay = _staying(learner, tau)

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Params:
        features = features_of(learner, original, train)
        if latent >= features.shape[1]:
            raise ValueError(
                f"laf got {latent} codes for {features.shape[1]} features, expected "
                "fewer: lower latent"
            )
        return kind.fit(key, features, jnp.asarray(train.weights), latent)

    def forget(
        key: PRNGKey, known: Params, variables: Variables, request: Request
    ) -> tuple[Variables, Params]:
        fit_key, order_key = jax.random.split(key)
        before = tuple(features_of(learner, variables, part) for part in request)
        weights = tuple(jnp.asarray(part.weights) for part in request)
        own = kind.fit(fit_key, before[0], weights[0], latent)
        inputs = tuple(jax.tree.map(jnp.asarray, part.inputs) for part in request)
        data = tuple(zip(inputs, before, strict=True))
        sizes = [min(batch_size, w.shape[0]) for w in weights]
        counts = [jnp.sum(w > 0) for w in weights]
        each = [-(-count // size) for count, size in zip(counts, sizes, strict=True)]
        steps = jnp.minimum(*each)

        def drawn(part: int, order: Array, step: Any) -> Any:
            place = step * sizes[part] + jnp.arange(sizes[part])
            rows = order[place % jnp.maximum(counts[part], 1)]
            there = jnp.where(place < counts[part], weights[part][rows], 0)
            return jax.tree.map(lambda leaf: leaf[rows], data[part]), there

        def one_pass(epoch: Any, states: tuple[TrainState, TrainState]) -> Any:
            keys = jax.random.split(jax.random.fold_in(order_key, epoch), 3)
            orders = [shuffled(k, w)[0] for k, w in zip(keys[1:], weights, strict=True)]

            def pair(step: Any, states: tuple[TrainState, TrainState]) -> Any:
                first, second = states
                lost, kept = (drawn(part, orders[part], step) for part in (0, 1))
                at = first.variables.params
                moved = []
                for state, loss, recipe in (
                    (first, leave, extract),
                    (second, stay, align),
                ):
                    riding = {**rest, "lost": lost}
                    now = state._replace(variables=Variables(at, riding))
                    now = descend(
                        jax.random.fold_in(keys[0], step),
                        now,
                        kept[0],
                        kept[1],
                        loss,
                        recipe,
                        total_steps=1,
                    )
                    at = now.variables.params
                    moved.append(now)
                first, second = moved
                return first._replace(variables=second.variables), second

            return fori_loop(0, steps, pair, states, data)

        rest = {"stats": variables.stats, "all": known, "own": own}
        start = Variables(
            variables.params, {**rest, "lost": drawn(0, jnp.arange(1), 0)}
        )
        states = begin(start, extract), begin(start, align)
        first, _ = fori_loop(0, epochs, one_pass, states, data)
        return variables._replace(params=first.variables.params), known

    method = Method(prepare, forget)
    if not repair_epochs:
        return method
    repair = finetune_last(
        learner,
        epochs=repair_epochs,
        learning_rate=repair_rate,
        batch_size=learner.recipe.batch_size,
    )
    return chain(method, repair)


def bounded(distances: Array) -> Array:
    """exp(d / (d + 1)), from 1 to e."""
    return jnp.exp(distances / (distances + 1))


def _leaving(learner: Learner, reconstruct: Any) -> StepLoss:
    """The first kind of step: examples are retained, those to forget ride."""

    def step_loss(
        key: Any, params: Any, riding: Any, examples: Any, weights: Any
    ) -> Any:
        del key
        means = []
        lost, there = riding["lost"]
        for (inputs, _), mass, known in (
            (examples, weights, riding["all"]),
            (lost, there, riding["own"]),
        ):
            features = learner.model.features(
                Variables(params, riding["stats"]), inputs
            )
            apart = features - reconstruct(known, features)
            squares = jnp.sum(jnp.square(apart), axis=1)
            means.append(weighted_mean(bounded(squares), mass))
        return means[0] - means[1], riding

    return step_loss


def _staying(learner: Learner, tau: float) -> StepLoss:
    """The second: retained features stay where they were, the others need not."""

    def step_loss(
        key: Any, params: Any, riding: Any, examples: Any, weights: Any
    ) -> Any:
        del key
        lost, there = riding["lost"]

        def turned(pair: Any) -> Array:
            inputs, before = pair
            features = learner.model.features(
                Variables(params, riding["stats"]), inputs
            )
            return 1 - jnp.sum(unit(features) * unit(before), axis=1)

        scaled = turned(lost) / tau
        scaled = jnp.where(there > 0, scaled, -jnp.inf)
        away = jax.nn.logsumexp(jnp.where(jnp.any(there > 0), scaled, 0))
        return weighted_mean(turned(examples), weights) - away, riding

    return step_loss
