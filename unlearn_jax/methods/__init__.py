"""Ways to unlearn. ``METHODS``: name -> Entry, grouped by family.

To add one: a file with a factory ``method(learner, *, options) -> Method``, a line
here, a line in ``tests/methods/strong.py``, and a law of its own.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from unlearn_jax.methods.amnesiac import amnesiac
from unlearn_jax.methods.anchored_finetune import ewc, l2_to_init
from unlearn_jax.methods.assd import assd
from unlearn_jax.methods.bad_teacher import bad_teacher
from unlearn_jax.methods.blindspot import blindspot
from unlearn_jax.methods.boundary_expanding import boundary_expanding
from unlearn_jax.methods.boundary_shrink import boundary_shrink
from unlearn_jax.methods.datamodel_matching import datamodel_matching
from unlearn_jax.methods.dpo import dpo, llmu, refusal
from unlearn_jax.methods.duck import duck
from unlearn_jax.methods.finetune import finetune
from unlearn_jax.methods.fisher_forgetting import fisher_forgetting
from unlearn_jax.methods.fisher_merging import fisher_merging
from unlearn_jax.methods.flat import flat
from unlearn_jax.methods.gaussian_amnesiac import gaussian_amnesiac
from unlearn_jax.methods.graddiff import graddiff
from unlearn_jax.methods.gradient_ascent import gradient_ascent
from unlearn_jax.methods.identity import identity
from unlearn_jax.methods.influence_removal import influence_removal
from unlearn_jax.methods.influence_unlearning import influence_unlearning
from unlearn_jax.methods.l1_sparse import l1_sparse
from unlearn_jax.methods.laf import laf
from unlearn_jax.methods.last_layers import finetune_last, retrain_last
from unlearn_jax.methods.lfssd import lfssd
from unlearn_jax.methods.lipschitz import lipschitz
from unlearn_jax.methods.method import Method, Request, chain, make_request, restrict
from unlearn_jax.methods.mudman import mudman
from unlearn_jax.methods.natural_ascent import natural_ascent
from unlearn_jax.methods.neggrad_plus import neggrad_plus
from unlearn_jax.methods.newton_removal import newton_removal
from unlearn_jax.methods.npo import npo, npo_smooth, simnpo
from unlearn_jax.methods.opt_out import opt_out
from unlearn_jax.methods.oracle_matching import oracle_matching
from unlearn_jax.methods.potion import potion
from unlearn_jax.methods.prioritised_finetune import prioritised_finetune
from unlearn_jax.methods.prune_finetune import prune_finetune
from unlearn_jax.methods.prune_rewind import prune_rewind
from unlearn_jax.methods.random_labels import random_labels
from unlearn_jax.methods.refresh_learning import refresh_learning
from unlearn_jax.methods.retain_newton import retain_newton
from unlearn_jax.methods.retrain import retrain
from unlearn_jax.methods.rmu import rmu
from unlearn_jax.methods.salun import salun
from unlearn_jax.methods.salun_soft import salun_soft
from unlearn_jax.methods.scar import scar
from unlearn_jax.methods.scrub import scrub
from unlearn_jax.methods.slug import slug
from unlearn_jax.methods.sophia import sophia
from unlearn_jax.methods.source_removal import source_removal
from unlearn_jax.methods.ssd import ssd, ssd_batch
from unlearn_jax.methods.stochastic_teacher import stochastic_teacher
from unlearn_jax.methods.undial import ce_u, undial
from unlearn_jax.methods.unrolled_removal import unrolled_removal
from unlearn_jax.methods.unsir import unsir
from unlearn_jax.methods.wagle import wagle
from unlearn_jax.methods.weighted_ascent import satimp, wga


class Entry(NamedTuple):
    """Description: a method as the experiments know it.

    Attributes:
        factory: ``(learner, *, options) -> Method``; keyword-only arguments are the
            hyper-parameters.
        tasks: What it can unlearn: "classification", "regression", "tokens".
        reads: What it needs at the request: "nothing", "forget", "retain", "both".
        prepares: Whether work is done before any request is known.
        source: The paper, short.
        trace: Whether ``prepare`` reads a trace of training, its fourth argument, see
            :mod:`unlearn_jax.attribution.trace`.
    """

    factory: Callable[..., Method]
    tasks: tuple[str, ...]
    reads: str
    prepares: bool
    source: str
    trace: bool = False


_ANY = ("classification", "regression", "tokens")
_NUMBERS = ("classification", "regression")
_CLASSES = ("classification",)
_LABELS = ("classification", "tokens")
_REGRESSION = ("regression",)

METHODS: Mapping[str, Entry] = {
    # control and oracle
    "identity": Entry(identity, _ANY, "nothing", False, "control"),
    "retrain": Entry(retrain, _ANY, "retain", False, "the oracle"),
    # training on
    "finetune": Entry(finetune, _ANY, "retain", False, "arXiv 2304.04934"),
    "finetune_last": Entry(finetune_last, _ANY, "retain", False, "arXiv 2201.06640"),
    "retrain_last": Entry(retrain_last, _ANY, "retain", False, "arXiv 2201.06640"),
    "gradient_ascent": Entry(
        gradient_ascent, _ANY, "forget", False, "arXiv 2304.04934"
    ),
    "neggrad_plus": Entry(neggrad_plus, _ANY, "both", False, "arXiv 2302.09880"),
    "l1_sparse": Entry(l1_sparse, _ANY, "retain", False, "arXiv 2304.04934"),
    "prune_finetune": Entry(prune_finetune, _ANY, "retain", False, "arXiv 2304.04934"),
    "prune_rewind": Entry(
        prune_rewind, _ANY, "retain", True, "arXiv 2304.04934", trace=True
    ),
    "amnesiac": Entry(amnesiac, _CLASSES, "both", False, "arXiv 2010.10981"),
    "random_labels": Entry(random_labels, _CLASSES, "both", False, "arXiv 2310.12508"),
    "salun": Entry(salun, _CLASSES, "both", False, "arXiv 2310.12508"),
    "salun_soft": Entry(salun_soft, _CLASSES, "both", False, "arXiv 2310.12508"),
    "boundary_shrink": Entry(
        boundary_shrink, _CLASSES, "forget", False, "arXiv 2303.11570"
    ),
    "boundary_expanding": Entry(
        boundary_expanding, _CLASSES, "forget", False, "arXiv 2303.11570"
    ),
    "lipschitz": Entry(lipschitz, _NUMBERS, "forget", False, "arXiv 2402.01401"),
    "unsir": Entry(unsir, _CLASSES, "retain", False, "arXiv 2111.08947"),
    "prioritised_finetune": Entry(
        prioritised_finetune, _ANY, "both", False, "no single source"
    ),
    "gaussian_amnesiac": Entry(
        gaussian_amnesiac, _REGRESSION, "both", False, "arXiv 2210.08196"
    ),
    "ewc": Entry(ewc, _ANY, "both", False, "arXiv 1612.00796"),
    "l2_to_init": Entry(l2_to_init, _ANY, "forget", False, "no single source"),
    "fisher_merging": Entry(fisher_merging, _ANY, "retain", False, "arXiv 2111.09832"),
    "refresh_learning": Entry(refresh_learning, _ANY, "both", True, "arXiv 2403.13249"),
    # distances in feature space
    "duck": Entry(duck, _CLASSES, "both", True, "arXiv 2312.02052"),
    "scar": Entry(scar, _CLASSES, "forget", True, "arXiv 2404.12922"),
    "laf": Entry(laf, _NUMBERS, "both", True, "arXiv 2404.00506"),
    # steps in one layer
    "slug": Entry(slug, _CLASSES, "both", True, "arXiv 2407.11867"),
    # a term on the forget set, another on the retain set: language models' methods
    "graddiff": Entry(graddiff, _LABELS, "both", False, "arXiv 2401.06121"),
    "refusal": Entry(refusal, _LABELS, "both", False, "arXiv 2401.06121"),
    "dpo": Entry(dpo, _LABELS, "both", False, "arXiv 2404.05868"),
    "llmu": Entry(llmu, _LABELS, "both", False, "arXiv 2310.10683"),
    "npo": Entry(npo, _LABELS, "both", False, "arXiv 2404.05868"),
    "simnpo": Entry(simnpo, _LABELS, "both", False, "arXiv 2410.07163"),
    "npo_smooth": Entry(npo_smooth, _LABELS, "both", False, "arXiv 2502.05374"),
    "opt_out": Entry(opt_out, _LABELS, "both", False, "arXiv 2406.12329"),
    "mudman": Entry(mudman, _LABELS, "both", False, "arXiv 2506.12484"),
    "wagle": Entry(wagle, _LABELS, "both", False, "arXiv 2410.17509"),
    "undial": Entry(undial, _LABELS, "forget", False, "arXiv 2506.12618"),
    "ce_u": Entry(ce_u, _LABELS, "forget", False, "arXiv 2506.12618"),
    "wga": Entry(wga, _LABELS, "both", False, "arXiv 2506.12618"),
    "satimp": Entry(satimp, _LABELS, "both", False, "arXiv 2506.12618"),
    "flat": Entry(flat, _LABELS, "forget", False, "arXiv 2410.11143"),
    "sophia": Entry(sophia, _LABELS, "both", False, "arXiv 2404.18239"),
    "rmu": Entry(rmu, _LABELS, "both", False, "arXiv 2403.03218"),
    # dampening by curvature diagonals
    "ssd": Entry(ssd, _ANY, "forget", True, "arXiv 2308.07707"),
    "ssd_batch": Entry(ssd_batch, _ANY, "forget", True, "arXiv 2308.07707"),
    "lfssd": Entry(lfssd, _ANY, "forget", True, "arXiv 2402.19308"),
    "assd": Entry(assd, _ANY, "both", False, "arXiv 2402.10098"),
    "potion": Entry(potion, _CLASSES, "forget", True, "arXiv 2406.09173"),
    # noise by curvature diagonals
    "fisher_forgetting": Entry(
        fisher_forgetting, _CLASSES, "retain", False, "arXiv 1911.04933"
    ),
    # steps by full curvature
    "influence_removal": Entry(
        influence_removal, _ANY, "both", True, "arXiv 1703.04730"
    ),
    "newton_removal": Entry(newton_removal, _ANY, "both", False, "arXiv 1911.03030"),
    "influence_unlearning": Entry(
        influence_unlearning, _ANY, "both", False, "arXiv 2304.04934"
    ),
    "retain_newton": Entry(retain_newton, _LABELS, "both", False, "no single source"),
    # along what training left behind
    "source_removal": Entry(
        source_removal, _ANY, "forget", True, "arXiv 2405.12186", trace=True
    ),
    "natural_ascent": Entry(
        natural_ascent, _ANY, "forget", True, "no single source", trace=True
    ),
    "unrolled_removal": Entry(
        unrolled_removal, _ANY, "both", True, "no single source", trace=True
    ),
    # teacher and student
    "bad_teacher": Entry(bad_teacher, _CLASSES, "both", False, "arXiv 2205.08096"),
    "stochastic_teacher": Entry(
        stochastic_teacher, _CLASSES, "both", False, "arXiv 2308.14322"
    ),
    "scrub": Entry(scrub, _CLASSES, "both", False, "arXiv 2302.09880"),
    "blindspot": Entry(blindspot, _REGRESSION, "both", False, "arXiv 2210.08196"),
    # outputs of the oracle, predicted or true
    "dmm": Entry(datamodel_matching, _NUMBERS, "both", True, "arXiv 2410.23232"),
    "oracle_matching": Entry(oracle_matching, _ANY, "both", False, "arXiv 2410.23232"),
}


def check_task(name: str, task: str) -> None:
    """Refuse a method where it cannot work, before anything is trained.

    Raises:
        ValueError: unknown name, or a task that the method does not support.
    """
    if name not in METHODS:
        raise ValueError(
            f"there is no method {name!r}; choose from {', '.join(METHODS)}"
        )
    entry = METHODS[name]
    if task not in entry.tasks:
        able = [other for other, e in METHODS.items() if task in e.tasks]
        raise ValueError(
            f"{name} unlearns {' and '.join(entry.tasks)}, this data set is a "
            f"{task}; methods for it: {', '.join(able)}"
        )


__all__ = [
    "METHODS",
    "Entry",
    "Method",
    "Request",
    "chain",
    "check_task",
    "make_request",
    "restrict",
]
