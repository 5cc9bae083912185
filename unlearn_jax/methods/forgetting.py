"""Minimise a term on the forget set and another on the retain set, step by step.

The frame of what is done to language models, and to classifiers alike: the methods
differ by their term, see :mod:`unlearn_jax.methods.forget_terms`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from unlearn_jax import tree
from unlearn_jax.data.accumulate import collect
from unlearn_jax.data.answers import Bank, check_bank, other_answers
from unlearn_jax.methods.forget_terms import Memory, Seen, Term
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.methods.paired import PairLoss, Part, paired_descent, part_of
from unlearn_jax.methods.smoothing import check_smoothing, smoothed
from unlearn_jax.methods.tether import Tether
from unlearn_jax.models.model import Model
from unlearn_jax.train.asked import asked
from unlearn_jax.train.descent import Rule, steps_per_pass
from unlearn_jax.train.fit import choose_fit_loop, weighted_mean
from unlearn_jax.train.recipe import Learner, Recipe, optimizer
from unlearn_jax.types import Batch, PRNGKey, Variables

RETAINS = ("loss", "kl", "none")
"""What holds the retain set: its loss, KL(original ‖ model), or nothing."""


class Stepper(NamedTuple):
    """Description: an optimiser that reads curvature of its own.

    Attributes:
        begin: ``params -> what it carries``.
        watch: ``(key, params, stats, carried, retained part) -> carried``, before every
            step; nothing is differentiated through it.
        rule: ``(recipe, total_steps, carried) -> optax transformation`` of rate one,
            whatever the recipe says: its steps are multiplied by the rate.
    """

    begin: Callable[[Any], Any]
    watch: Callable[..., Any]
    rule: Callable[..., Any]


def forgetting(learner: Learner, term: Term, **options: Any) -> Method:
    """:func:`forgetting_run` as a method, with its options.

    Raises:
        ValueError: as there.
    """
    run = forgetting_run(learner, term, **options)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        return run(key, variables, request)[0]

    return stateless(forget)


def forgetting_run(
    learner: Learner,
    term: Term,
    *,
    retain: str = "loss",
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
    retain_batch: int | None = None,
    answers: Bank = (),
    smoothing: str = "none",
    smoothing_size: float = 0.0,
    samples: int = 3,
    average_from: float = 1.0,
    stepper: Stepper | None = None,
    tether: Tether | None = None,
    tether_weight: float = 0.0,
) -> Callable[[PRNGKey, Variables, Request], tuple[Variables, Any]]:
    """forget_weight · term(forget batch) + retain_weight · hold(retain batch).

    A pass is over the forget set, and every step has retained examples beside it, drawn
    anew in each pass; so the retain set is seen as often as the forget set.

    Args:
        learner: Optimiser and momentum are those of its recipe; its loss holds the
            retain set, with its l2. No weight decay.
        term: On the forget set.
        retain: "loss"; "kl", the divergence KL(original ‖ model) for each label that is
            asked for, of the retained batch; or "none".
        forget_weight: Of the term (no unit).
        retain_weight: Of what holds (no unit).
        epochs: Passes over the forget set.
        learning_rate: Constant step size. It may be traced, so that one program serves
            many.
        batch_size: Forgotten examples per step.
        retain_batch: Retained examples per step; None as many as forgotten ones.
        answers: Other answers as tokens, see :mod:`unlearn_jax.data.answers`: one is
            drawn for each forgotten example, once for a request. Empty: another class,
            or any tokens.
        smoothing: Of the forget term, see :mod:`unlearn_jax.methods.smoothing`.
        smoothing_size: As there.
        samples: As there.
        average_from: Share of the run after which the parameters after each step are
            averaged; the average is what is left. 1 leaves the last ones.
        stepper: In place of the recipe's optimiser.
        tether: A distance of the parameters from the original's, added to the loss.
        tether_weight: Of it [loss / its unit].

    Returns:
        ``(key, variables, request) -> (variables, state of the optimiser)``.

    Batch statistics move, by the forgotten batch first.

    Raises:
        ValueError: an unknown name, or a share outside [0, 1].

    Cost: epochs × forget examples gradients, two with a retain term, one more forward
        pass for "kl"; smoothing multiplies those of the forget term. Once, a forward
        pass over the forget set where the term remembers the original.
    """
    if retain not in RETAINS:
        raise ValueError(
            f"retain {retain!r} is unknown; choose from {', '.join(RETAINS)}"
        )
    if not 0 <= average_from <= 1:
        raise ValueError(
            f"average_from must be from 0 to 1, a share of the run, got {average_from}"
        )
    check_smoothing(smoothing)
    bank = check_bank(answers)
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=1.0,
        batch_size=batch_size,
        schedule="constant",
        augment="none",
        weight_decay=0.0,
    )
    averages = average_from < 1
    pair_loss = _pair_loss(
        learner,
        term,
        retain,
        (forget_weight, retain_weight),
        (smoothing, smoothing_size, samples),
        stepper,
        (tether, tether_weight),
        averages=averages,
    )
    rule = _paced(stepper.rule if stepper is not None else None)

    def run(
        key: PRNGKey, variables: Variables, request: Request
    ) -> tuple[Variables, Any]:
        loop = choose_fit_loop(learner, request.retain, key, variables)
        draw_key, run_key = jax.random.split(key)
        examples = remembered(
            draw_key, learner.model, term, variables, request.forget, bank, loop
        )
        carried: dict[str, Any] = {"rate": jnp.asarray(learning_rate, float)}
        if retain == "kl" or tether is not None:
            carried["original"] = variables
        steps = epochs * steps_per_pass(request.forget.weights, batch_size)
        if averages:
            first = jnp.floor(average_from * steps).astype(jnp.int32)
            carried["mean"] = variables.params
            carried["step"], carried["first"] = jnp.zeros((), jnp.int32), first
        if stepper is not None:
            carried["own"] = stepper.begin(variables.params)
        moved, carried, left = paired_descent(
            run_key,
            variables,
            Part(examples, jnp.asarray(request.forget.weights)),
            part_of(request.retain),
            pair_loss,
            recipe,
            beside_batch=retain_batch or batch_size,
            carried=carried,
            rule=rule,
            loop=loop,
        )
        if not averages:
            return moved, left
        mean = _averaged(carried, moved.params)["mean"]
        idle = jnp.asarray(steps) == 0
        return moved._replace(params=tree.where(idle, variables.params, mean)), left

    return run


def _paced(own: Callable[..., Any] | None) -> Rule:
    """An optimiser of rate one, its steps times the rate that is carried."""

    def rule(recipe: Recipe, total: Any, carried: Any) -> optax.GradientTransformation:
        if own is None:
            inner = optimizer(recipe, total)
        else:
            inner = own(recipe, total, carried["own"])

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            steps, state = inner.update(updates, state, params)
            return tree.scale(carried["rate"], steps), state

        return optax.GradientTransformation(inner.init, update)

    return rule


def remembered(
    key: PRNGKey,
    model: Model,
    term: Term,
    variables: Variables,
    data: Batch,
    bank: Bank,
    loop: Any,
) -> dict[str, Any]:
    """The forget set as a term reads it: with other answers, and what was said before.

    Returns:
        Tree whose leaves have the examples first: "true" and "other", each (inputs,
        targets, before).
    """
    inputs, targets = jax.tree.map(jnp.asarray, (data.inputs, data.targets))
    two = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape[1:]), leaf.dtype), inputs
    )
    labels = jax.eval_shape(model.apply, variables, two).shape[-1]
    told = {"true": (inputs, targets)}
    if term.other:
        told["other"] = other_answers(key, inputs, targets, labels, bank)
    if term.remembers == "nothing":
        return {name: (*pair, ()) for name, pair in told.items()}

    def said(pair: Any, at: Variables) -> Any:
        return _memory(term.remembers, model.apply(at, pair[0]), pair[1])

    return {
        name: (*pair, collect(said, pair, variables, loop=loop))
        for name, pair in told.items()
    }


def _memory(kind: Memory, outputs: Any, targets: Any) -> Any:
    seen = asked(outputs, targets)
    return seen.nll if kind == "likelihood" else seen.outputs


def _pair_loss(
    learner: Learner,
    term: Term,
    retain: str,
    weights: tuple[float, float],
    smooth: tuple[str, float, int],
    stepper: Stepper | None,
    tether: tuple[Tether | None, float],
    *,
    averages: bool,
) -> PairLoss:
    model = learner.model

    def answered(key: Any, params: Any, stats: Any, pair: Any) -> Any:
        outputs, moved = model.apply_train(key, Variables(params, stats), pair[0])
        return outputs, asked(outputs, pair[1]), moved.stats

    def forget_term(key: Any, params: Any, stats: Any, forget: Part) -> Any:
        true = forget.examples["true"]
        outputs, now, stats = answered(key, params, stats, true)
        other, before = None, None
        if term.other:
            pair = forget.examples["other"]
            before = pair[2]
            if pair[1].ndim == 1:  # The question is the same, and so are its outputs.
                other = asked(outputs, pair[1])
            else:
                _, other, stats = answered(key, params, stats, pair)
        values = term.loss(Seen(now, true[2], other, before))
        return weighted_mean(values, forget.weights), stats

    def hold(key: Any, params: Any, stats: Any, original: Any, part: Part) -> Any:
        inputs, targets = part.examples
        outputs, moved = model.apply_train(key, Variables(params, stats), inputs)
        if retain == "loss":
            losses = learner.loss(outputs, targets)
        else:
            now = asked(outputs, targets)
            before = asked(model.apply(original, inputs), targets)
            losses = now.mean(divergence(before.outputs, now.outputs))
        value = weighted_mean(losses, part.weights)
        if learner.l2:
            value = value + 0.5 * learner.l2 * tree.dot(params, params)
        return value, moved.stats

    def pair_loss(
        key: Any, params: Any, stats: Any, carried: Any, forget: Part, kept: Part
    ) -> Any:
        forget_key, keep_key = jax.random.split(key)

        def part(key: Any, at: Any) -> Any:
            return forget_term(key, at, stats, forget)

        value, stats = smoothed(part, *smooth)(forget_key, params)
        value = weights[0] * value
        if retain != "none":
            held, stats = hold(keep_key, params, stats, carried.get("original"), kept)
            value = value + weights[1] * held
        if tether[0] is not None:
            own_key = jax.random.fold_in(key, 3)
            home = carried["original"].params
            value = value + tether[1] * tether[0](own_key, params, home)
        fixed = jax.lax.stop_gradient(params)
        if averages:
            carried = _averaged(carried, fixed)
        if stepper is not None:
            own_key = jax.random.fold_in(key, 2)
            own = stepper.watch(own_key, fixed, stats, carried["own"], kept)
            carried = {**carried, "own": own}
        return value, stats, carried

    return pair_loss


def divergence(before: Any, now: Any) -> Any:
    """KL(softmax(before) ‖ softmax(now)) of logits (..., k) [nats]."""
    old = jax.nn.log_softmax(before, axis=-1)
    gap = old - jax.nn.log_softmax(now, axis=-1)
    return jnp.sum(jnp.exp(old) * gap, axis=-1)


def _averaged(carried: dict[str, Any], params: Any) -> dict[str, Any]:
    """The mean of the parameters after the first steps, these as the latest.

    Called before a step with what the steps before it have left: so the first time
    that counts is after step ``first`` + 1.
    """
    count = carried["step"] - carried["first"]
    counted = jnp.maximum(count, 1)
    mean = jax.tree.map(
        lambda m, p: jnp.where(count <= 1, p, m + (p - m) / counted).astype(p.dtype),
        carried["mean"],
        params,
    )
    return {**carried, "mean": mean, "step": carried["step"] + 1}
