"""What every factory of an attribution begins with: options and batches are checked.

Shapes are told under ``jit`` too; values only where they are known. There a negative
training weight, which nothing can be raised for, comes out as NaN.
"""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import Attribution, Evidence
from unlearn_jax.loop import tracing
from unlearn_jax.options import check_options
from unlearn_jax.train.door import check_losses, check_outputs, checked_batch
from unlearn_jax.train.entrance import check_batch, inside, output_shape
from unlearn_jax.train.loss import squared_norm
from unlearn_jax.train.objective import Objective
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, OutputLoss, PRNGKey, Variables

P = ParamSpec("P")
Factory = Callable[Concatenate[Learner, P], Attribution]


def entrance(*, negative: bool = False) -> Callable[[Factory[P]], Factory[P]]:
    """Decorator of a factory: refuses options and, in its functions, batches.

    Args:
        negative: Training weights may be negative, since only sums over examples are
            taken. Those of queries always may: they say who is there.
    """

    def decorate(factory: Factory[P]) -> Factory[P]:
        @functools.wraps(factory)
        def build(learner: Learner, *args: P.args, **options: P.kwargs) -> Attribution:
            check_options(factory, options)
            made = factory(learner, *args, **options)
            return guarded(factory.__name__, learner, made, negative=negative)

        return build

    return decorate


def guarded(
    what: str, learner: Learner, made: Attribution, *, negative: bool = False
) -> Attribution:
    """The same attribution; what it cannot digest is refused before it begins.

    Its functions raise ValueError: no example, lengths that differ, inputs that the
    model cannot take, outputs or values that are not one for each example; on concrete
    batches also NaN, labels out of range and negative training weights.

    Args:
        what: Its name, for the sentence.
        learner: Whose model and loss the batches have to suit.
        made: The attribution.
        negative: As in :func:`entrance`.
    """

    def check_train(like: Variables, train: Batch) -> None:
        name = f"{what} (training set)"
        check_examples(name, learner, like, train, learner.loss, negative=negative)

    def sound(found: Array, train: Batch) -> Array:
        if negative or not tracing(train.weights):
            return found
        return jnp.where(jnp.all(train.weights >= 0), found, jnp.nan)

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> Any:
        check_train(one_model(learner, evidence), train)
        with inside():
            return made.prepare(key, evidence, train)

    def check_queries(
        state: Any, train: Batch, queries: Batch, output_fn: OutputLoss
    ) -> None:
        like = one_model(learner, state)
        check_train(like, train)
        check_examples(f"{what} (queries)", learner, like, queries, output_fn)

    def effects(
        state: Any, train: Batch, queries: Batch, output_fn: OutputLoss
    ) -> Array:
        check_queries(state, train, queries, output_fn)
        with inside():
            return sound(made.effects(state, train, queries, output_fn), train)

    def check_change(
        state: Any, train: Batch, queries: Batch, weights_change: Any
    ) -> None:
        like = one_model(learner, state)
        check_train(like, train)
        # Targets of the queries play no part.
        check_examples(f"{what} (queries)", learner, like, queries, squared_norm)
        given, expected = jnp.shape(weights_change), jnp.shape(train.weights)
        if given != expected:
            raise ValueError(
                f"{what}: weights_change has shape {given}, expected {expected}: give "
                f"one change for each training example"
            )

    def change(state: Any, train: Batch, queries: Batch, weights_change: Any) -> Array:
        check_change(state, train, queries, weights_change)
        with inside():
            return sound(made.change(state, train, queries, weights_change), train)

    def telling(
        solved: Callable[..., Any], check: Callable[..., None]
    ) -> Callable[..., Any]:
        def run(
            state: Any, train: Batch, queries: Batch, asked: Any
        ) -> tuple[Array, Any]:
            check(state, train, queries, asked)
            with inside():
                found, told = solved(state, train, queries, asked)
            return sound(found, train), told

        return run

    of_change, of_effects = made.reported, made.effects_reported
    return Attribution(
        prepare,
        effects,
        change,
        of_change and telling(of_change, check_change),
        of_effects and telling(of_effects, check_queries),
    )


def one_model(learner: Learner, held: Any) -> Variables:
    """Shapes of one model: of the first stack held, else as the learner draws it.

    Args:
        learner: Its model is initialised abstractly where nothing is held.
        held: Evidence, or the state of an attribution: its models lead with an axis m.
    """
    for value in held if isinstance(held, tuple) else ():
        if isinstance(value, Variables) and jax.tree.leaves(value.params):
            return jax.eval_shape(lambda models: tree.member(models, 0), value)
    return jax.eval_shape(learner.model.init, jax.random.key(0))


def check_examples(
    what: str,
    learner: Learner,
    variables: Any,
    batch: Batch,
    value: OutputLoss,
    *,
    negative: bool = True,
) -> None:
    """Refuse a batch that this learner's models, or this value, cannot take.

    Args:
        what: What the sentence calls the batch.
        learner: Its model is traced.
        variables: Of one model, or their shapes.
        batch: Examples; all of them may have weight zero.
        value: The loss, or an output function: one number for each example.
        negative: Weights may be negative.

    Raises:
        ValueError: what was given, what was expected, what to change.

    Cost: as ``train.entrance.check_learnable``; while tracing, shapes alone.
    """
    checked_batch(what, batch)
    apply = learner.model.apply
    output_shape(apply, variables, batch.inputs, what)
    check_outputs(what, apply, variables, batch.inputs, 3)
    check_losses(what, Objective(apply, value), variables, batch)
    check_batch(apply, variables, value, batch, name=what, negative=negative)
