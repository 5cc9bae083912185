"""A judge of drawn images: which class, and whether that is a question at all.

A classifier answers for whatever it is given, noise and blends too. This one is silent
about images that are not like those it has learnt from: too far from, or too near to,
the mean of every group (an average of many digits is a digit to most classifiers), or
of no clear class. The class is told by kernel ridge regression (``votes``), features
come from a net.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax.evaluation.votes import Votes, chances_by, fit_votes
from unlearn_jax.options import check_number
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Variables
from unlearn_kernels.precision import exact_product

REJECTED = -1
"""The class of an image that the judge is silent about."""


class Judge(NamedTuple):
    """Value: a classifier, and the region in which it is asked.

    Attributes:
        variables: Of the net, whose features distances of distributions are taken in.
        votes: Tell the class.
        centres: Mean image of each group, (g, pixels).
        whitening: Makes the pixels within groups white, (pixels, pixels).
        bounds: The least and the largest distance to the nearest centre, of those that
            are judged; in standard deviations.
        least: Probability of the likeliest class, from which on it is told.
    """

    variables: Variables
    votes: Votes
    centres: Float[Array, "g p"]
    whitening: Float[Array, "p p"]
    bounds: Float[Array, " 2"]
    least: Float[Array, ""]


def fit_judge(
    key: PRNGKey,
    learner: Learner,
    data: Batch,
    held_out: Batch,
    groups: Int[np.ndarray, " n"],
    *,
    accepted: float = 0.999,
    least: float = 0.5,
) -> Judge:
    """Fit classifier and net, and tell the region by images that neither has seen.

    Args:
        key: Draws what training draws.
        learner: The net.
        data: Images with class labels; those of weight zero are not there.
        held_out: Images of the same kind, none of them in ``data``.
        groups: Which images of ``data`` are of one kind (a class in a style); the
            spread within them is one matrix.
        accepted: Share of the held-out images that should be judged; half of the others
            are too near, half too far.
        least: A class that is less likely is not told.

    Raises:
        ValueError: shares outside of 0 to 1, a judge that would reject everything, or
            fewer images than groups.

    Cost: one training, p³ for p pixels, and n³ / 3 for n images.
    Source: distances as Lee et al., A Simple Unified Framework for Detecting
        Out-of-Distribution Samples, 2018. Differs: of pixels, which no classifier has
        thrown away; and the too near are rejected too.
    """
    check_number("accepted", accepted, positive=True)
    check_number("least", least, least=0.0)
    if accepted > 1 or least >= 1:
        raise ValueError(
            f"got accepted {accepted} and least {least}, expected a share above 0 and "
            "at most 1 and a probability below 1: a judge that rejects everything "
            "judges nothing"
        )
    there = np.asarray(data.weights) > 0
    pixels = np.asarray(data.inputs, np.float64).reshape(len(there), -1)[there]
    numbers, own = np.unique(np.asarray(groups)[there], return_inverse=True)
    if len(pixels) <= len(numbers):
        raise ValueError(
            f"got {len(pixels)} images in {len(numbers)} groups, expected several in "
            "each: the spread within groups is what tells"
        )
    centres = np.stack([pixels[own == g].mean(0) for g in range(len(numbers))])
    spread = pixels - centres[own]
    values, vectors = np.linalg.eigh(spread.T @ spread / (len(pixels) - len(numbers)))
    # Pixels that never differ would tell everything; the finest grey level bounds them.
    values = np.maximum(values, max(values.max() * 1e-3, 1e-12))
    whitening = vectors / np.sqrt(values)
    variables = jax.jit(lambda k, d: fit(k, learner, d))(key, data)
    classes = int(np.max(np.asarray(data.targets)[there])) + 1
    judge = Judge(
        variables,
        fit_votes(data, held_out, classes),
        jnp.asarray(centres, jnp.float32),
        jnp.asarray(whitening, jnp.float32),
        jnp.asarray([0, np.inf], jnp.float32),
        jnp.asarray(least, jnp.float32),
    )
    seen = np.asarray(held_out.weights) > 0
    far = np.asarray(distances(judge, jnp.asarray(held_out.inputs)))[seen]
    ends = np.quantile(far, [(1 - accepted) / 2, (1 + accepted) / 2])
    return judge._replace(bounds=jnp.asarray(ends, jnp.float32))


def distances(judge: Judge, images: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """Of each image to the nearest centre, in standard deviations within groups."""
    pixels = images.reshape(images.shape[0], -1).astype(jnp.float32)
    white = exact_product(pixels, judge.whitening)
    centres = exact_product(judge.centres, judge.whitening)
    square = (
        jnp.sum(white * white, 1)[:, None]
        + jnp.sum(centres * centres, 1)[None]
        - 2 * exact_product(white, centres.T)
    )
    return jnp.sqrt(jnp.maximum(jnp.min(square, axis=1), 0))


def judged(
    judge: Judge, images: Float[Array | np.ndarray, "n ..."]
) -> Int[Array, " n"]:
    """The class of each image, or :data:`REJECTED`.

    Args:
        judge: From :func:`fit_judge`.
        images: (n, h, w, c).
    """
    images = jnp.asarray(images)
    far = distances(judge, images)
    chances = chances_by(judge.votes, images)
    inside = (far >= judge.bounds[0]) & (far <= judge.bounds[1])
    clear = jnp.max(chances, axis=-1) >= judge.least
    return jnp.where(inside & clear, jnp.argmax(chances, axis=-1), REJECTED)


class Erasure(NamedTuple):
    """Value: what a judge says of images that prompts asked for.

    Attributes:
        unlearned: UA: share of the prompts for the target whose image is not of it. A
            rejected image is not of it, so read it beside ``rejected``.
        in_domain: IRA: share of the other prompts whose image is of what they ask.
        cross_domain: CRA: share of the retained prompts whose image is of the other
            kind (style, where a class is forgotten) that they ask.
        cross_forgotten: The same of the prompts for the target.
        went: (k + 1,): as what the target's images are seen; rejected ones last.
        rejected: Share of all images that were.
    """

    unlearned: float
    in_domain: float
    cross_domain: float
    cross_forgotten: float
    went: Float[np.ndarray, " k"]
    rejected: float


def erasure(
    asked: Any,
    seen: Any,
    *,
    target: int,
    classes: int,
    other_asked: Any,
    other_seen: Any,
) -> Erasure:
    """UA, IRA, CRA and where the forgotten mass goes, from what a judge has seen.

    Args:
        asked: (n,) classes that the prompts name (or styles, where one is forgotten).
        seen: (n,) what the judge says, :data:`REJECTED` among it.
        target: The one that is forgotten.
        classes: k.
        other_asked: (n,) styles that the prompts name (or classes).
        other_seen: (n,) what the judge of styles says.

    Raises:
        ValueError: no prompt for the target, or none for another.

    Source: the accuracies of UnlearnCanvas, Zhang et al. 2024, arXiv 2402.11846.
        Differs: a rejected image counts as wrong wherever accuracy is retained.
    """
    given = (asked, seen, other_asked, other_seen)
    asked, seen, other_asked, other_seen = (np.asarray(each) for each in given)
    own = asked == target
    if not own.any() or own.all():
        raise ValueError(
            f"{int(own.sum())} of {len(own)} prompts ask for {target}, expected some "
            "that do and some that do not: draw both"
        )
    right, other_right = seen == asked, other_seen == other_asked
    places = np.where(seen[own] == REJECTED, classes, seen[own])
    went = np.bincount(places, minlength=classes + 1) / own.sum()
    return Erasure(
        unlearned=float(1 - right[own].mean()),
        in_domain=float(right[~own].mean()),
        cross_domain=float(other_right[~own].mean()),
        cross_forgotten=float(other_right[own].mean()),
        went=went,
        rejected=float((seen == REJECTED).mean()),
    )
