"""Class unlearning by concepts: find what a class is made of, and relabel that."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from unlearn_jax.data.accumulate import collect
from unlearn_jax.data.answers import wrong_labels
from unlearn_jax.data.batch import concatenate
from unlearn_jax.loop import tracing
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner, under_adam
from unlearn_jax.types import Array, Batch, PRNGKey, Variables
from unlearn_kernels.precision import EXACT


class ConceptBank(NamedTuple):
    """Value: images of which it is known what they show.

    Attributes:
        inputs: (m, ...) as the model takes them.
        present: (m, c) whether each concept is in each.
        names: Of the concepts.
    """

    inputs: Any
    present: Bool[np.ndarray, "m c"]
    names: tuple[str, ...]


class Concepts(NamedTuple):
    """Value: what the concepts are to a model.

    Attributes:
        directions: (c, f) of features, one for each concept, of length 1.
        centre: (f,) mean features of the bank.
        kernel: (c, k) from concept scores to the model's outputs.
        bias: (k,) outputs at scores of zero.
        baseline: (c,) mean scores of the training set.
    """

    directions: Float[Array, "c f"]
    centre: Float[Array, " f"]
    kernel: Float[Array, "c k"]
    bias: Float[Array, " k"]
    baseline: Float[Array, " c"]


def bank_of(
    inputs: Any, labels: Sequence[Any], names: Sequence[Sequence[str]]
) -> ConceptBank:
    """A bank of one concept for each value of each label: classes, styles, ….

    Args:
        inputs: (m, ...) images.
        labels: Arrays (m,) of whole numbers, one for each kind of concept.
        names: What each value of each of them is called.

    Raises:
        ValueError: a value without a name.
    """
    columns = []
    for values, own in zip(labels, names, strict=True):
        values = np.asarray(values)
        if values.min() < 0 or values.max() >= len(own):
            raise ValueError(
                f"a label is {int(values.max())} and {len(own)} names are given: name "
                "each value from 0 on"
            )
        columns.append(values[:, None] == np.arange(len(own)))
    flat = tuple(name for own in names for name in own)
    return ConceptBank(inputs, np.concatenate(columns, axis=1), flat)


def concept_unlearning(
    learner: Learner,
    bank: ConceptBank,
    *,
    concepts: int = 1,
    share: float = 1.0,
    damping: float = 1e-2,
    path: int = 32,
    epochs: int = 3,
    learning_rate: float = 1e-4,
    batch_size: int = 256,
) -> Method:
    """Relabel the forget examples that are richest in their class's concepts.

    1. Each concept's direction in feature space: ridge regression on whether it is
       there. Scores are features along it; outputs are explained by scores, by ridge
       regression over the training set (a concept bottleneck after the fact).
    2. Integrated gradients of the bottleneck's probability of the class to forget, from
       the training set's mean scores to each forget example's, rank the concepts.
    3. The ``share`` of forget examples that have most of the first ``concepts`` gets
       wrong labels, drawn once, and is trained on beside the retain set, as
       :func:`~unlearn_jax.methods.amnesiac.amnesiac` does; the others are left out.

    Args:
        learner: Its loss takes class indices; of its recipe augmentation is used.
        bank: Images with known concepts; for style × class images it is known.
        concepts: How many of the ranked ones choose examples.
        share: Of the forget set, 0 to 1.
        damping: Of both regressions, over the mean variance of a column (no unit).
        path: Points of the integral.
        epochs: Passes.
        learning_rate: Of Adam.
        batch_size: Examples per step.

    Returns:
        Method; its state is ``Concepts``.

    Raises:
        ValueError: more concepts than the bank has, a share outside (0, 1], a concept
            that all or no image of the bank has; from ``forget``, when no concept of
            the bank speaks for the class: the bank lacks it.

    Cost: prepare, a forward pass over bank and training set and two solves of f and c
        columns; forget, path × forget scores, and epochs × all examples gradients.
    Source: Chang et al. 2024, arXiv 2405.15662, by its abstract. Differs: ridge in
        place of a sparse head; concepts are fitted, not taken from a language model.
    """
    count = len(bank.names)
    check_whole("concept_unlearning: concepts", concepts)
    check_whole("concept_unlearning: path", path)
    check_number("concept_unlearning: damping", damping, positive=True)
    if concepts > count or not 0 < share <= 1:
        raise ValueError(
            f"concept_unlearning got {concepts} of {count} concepts and share {share}, "
            "expected no more than there are, and a share above 0, at most 1"
        )
    present = np.asarray(bank.present)
    constant = present.all(axis=0) | ~present.any(axis=0)
    if constant.any():
        name = bank.names[int(constant.argmax())]
        raise ValueError(
            f"concept {name!r} is in all images of the bank or in none, expected both "
            "kinds: leave it out, or add images"
        )
    tuned = under_adam(
        learner, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size
    )

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Concepts:
        del key
        inputs = jnp.asarray(bank.inputs)
        features = _collected(learner.model.features, original, inputs)
        everyone = jnp.ones(len(features), features.dtype)
        target = jnp.asarray(present, features.dtype)
        found, _ = _ridge(features, target, everyone, damping)
        lengths = jnp.linalg.norm(found, axis=0)
        directions = (found / jnp.where(lengths > 0, lengths, 1)[None]).T
        centre = jnp.mean(features, axis=0)
        seen = _collected(learner.model.features, original, train.inputs)
        scores = scores_of(seen, directions, centre)
        outputs = _collected(learner.model.apply, original, train.inputs)
        there = (jnp.asarray(train.weights) > 0).astype(scores.dtype)
        kernel, bias = _ridge(scores, outputs, there, damping)
        baseline = jnp.sum(scores * there[:, None], axis=0) / jnp.sum(there)
        return Concepts(directions, centre, kernel, bias, baseline)

    def forget(
        key: PRNGKey, known: Concepts, variables: Variables, request: Request
    ) -> tuple[Variables, Concepts]:
        label_key, order_key = jax.random.split(key)
        kept, lost = jax.tree.map(jnp.asarray, (request.retain, request.forget))
        seen = _collected(learner.model.features, variables, lost.inputs)
        scores = scores_of(seen, known.directions, known.centre)
        worth = class_concepts(known, scores, lost, path=path)
        if not tracing(worth) and bool(jnp.max(worth) <= 0):
            raise ValueError(
                f"no concept of {', '.join(bank.names)} speaks for the class to "
                "forget: the bank lacks it, add images that show it"
            )
        best = jnp.argsort(-worth)[:concepts]
        rich = jnp.sum(scores[:, best] * worth[best][None], axis=1)
        there = lost.weights > 0
        wanted = jnp.ceil(share * jnp.sum(there)).astype(jnp.int32)
        rank = jnp.argsort(jnp.argsort(jnp.where(there, -rich, jnp.inf)))
        chosen = jnp.where(rank < wanted, lost.weights, 0)
        labels = wrong_labels(label_key, lost.targets, known.bias.shape[0])
        both = concatenate(kept, lost._replace(targets=labels, weights=chosen))
        return fit(order_key, tuned, both, start=variables), known

    return Method(prepare, forget)


def class_concepts(
    known: Concepts, scores: Float[Array, "n c"], lost: Batch, *, path: int = 32
) -> Float[Array, " c"]:
    """(c,) mean integrated gradient of each concept for the labels of the examples.

    Midpoint rule on the straight way from the baseline; the sum over concepts is the
    mean change of the label's probability on that way, up to the rule's error.
    """

    def chance(at: Array, label: Array) -> Array:
        outputs = jnp.matmul(at[None], known.kernel, precision=EXACT)[0] + known.bias
        return jax.nn.softmax(outputs)[label]

    def one(own: Array, label: Array) -> Array:
        gap = own - known.baseline
        places = (jnp.arange(path) + 0.5) / path
        ways = known.baseline[None] + places[:, None] * gap[None]
        slopes = jax.vmap(jax.grad(chance), (0, None))(ways, label)
        return gap * jnp.mean(slopes, axis=0)

    every = jax.vmap(one)(scores, lost.targets)
    weights = (lost.weights > 0).astype(every.dtype)
    total = jnp.maximum(jnp.sum(weights), 1)
    return jnp.sum(every * weights[:, None], axis=0) / total


def scores_of(
    features: Float[Array, "n f"],
    directions: Float[Array, "c f"],
    centre: Float[Array, " f"],
) -> Float[Array, "n c"]:
    """How much of each concept is in each example: features along its direction."""
    return jnp.matmul(features - centre[None], directions.T, precision=EXACT)


def _collected(function: Any, variables: Variables, inputs: Any) -> Array:
    return collect(lambda x, at: function(at, x), inputs, variables)


def _ridge(
    rows: Float[Array, "n f"],
    targets: Float[Array, "n k"],
    weights: Float[Array, " n"],
    damping: float,
) -> tuple[Float[Array, "f k"], Float[Array, " k"]]:
    """Kernel and bias of the least squares; the bias is free."""
    count = jnp.maximum(jnp.sum(weights), 1)
    means = [jnp.sum(a * weights[:, None], axis=0) / count for a in (rows, targets)]
    pairs = zip((rows, targets), means, strict=True)
    x, y = ((a - m[None]) * weights[:, None] for a, m in pairs)
    gram = jnp.matmul(x.T, x, precision=EXACT) / count
    size = len(gram)
    tiny = jnp.finfo(gram.dtype).tiny
    ridge = damping * jnp.maximum(jnp.trace(gram) / size, tiny)
    moment = jnp.matmul(x.T, y, precision=EXACT) / count
    kernel = jnp.linalg.solve(gram + ridge * jnp.eye(size, dtype=gram.dtype), moment)
    bias = means[1] - jnp.matmul(means[0][None], kernel, precision=EXACT)[0]
    return kernel, bias
