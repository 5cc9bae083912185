"""What training examples do to outputs. ``ATTRIBUTIONS``: name -> Entry.

To add one: a file with a factory ``name(learner, *, options) -> Attribution`` under
``guard.entrance()``, a line here, a line in
``tests/attribution/test_attribution_contract.py``, a law of its own.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from unlearn_jax.attribution.attribution import (
    Attribution,
    Evidence,
    Subsets,
    Trajectory,
)
from unlearn_jax.attribution.curvature_influence import influence
from unlearn_jax.attribution.datamodel import datamodel
from unlearn_jax.attribution.ekfac_influence import ekfac_influence
from unlearn_jax.attribution.logra import logra
from unlearn_jax.attribution.metagradient import metagradient
from unlearn_jax.attribution.representer import representer
from unlearn_jax.attribution.source import source
from unlearn_jax.attribution.sparse_datamodel import sparse_datamodel
from unlearn_jax.attribution.subset_means import empirical_leave_one_out
from unlearn_jax.attribution.tracin import tracin
from unlearn_jax.attribution.trak import trak


class Entry(NamedTuple):
    """Description: an attribution as the experiments know it.

    Attributes:
        factory: ``(learner, *, options) -> Attribution``; keyword-only arguments are
            the hyper-parameters.
        reads: Fields of ``Evidence`` that it reads.
        source: The paper, short.
    """

    factory: Callable[..., Attribution]
    reads: tuple[str, ...]
    source: str


ATTRIBUTIONS: Mapping[str, Entry] = {
    # at the end of training, by curvature
    "influence": Entry(influence, ("models",), "arXiv 1703.04730"),
    "ekfac_influence": Entry(ekfac_influence, ("models",), "arXiv 2308.03296"),
    "trak": Entry(trak, ("models",), "arXiv 2303.14186"),
    "logra": Entry(logra, ("models",), "arXiv 2405.13954"),
    "representer": Entry(representer, ("models",), "arXiv 1811.09720"),
    # through training
    "tracin": Entry(tracin, ("trajectory",), "arXiv 2002.08484"),
    "source": Entry(source, ("models", "trajectory"), "arXiv 2405.12186"),
    "metagradient": Entry(metagradient, ("keys",), "arXiv 2503.13751"),
    # from models of subsets
    "datamodel": Entry(datamodel, ("ensemble",), "arXiv 2202.00622"),
    "sparse_datamodel": Entry(sparse_datamodel, ("ensemble",), "arXiv 2202.00622"),
    "empirical_leave_one_out": Entry(
        empirical_leave_one_out, ("ensemble",), "arXiv 2008.03703"
    ),
}

__all__ = [
    "ATTRIBUTIONS",
    "Attribution",
    "Entry",
    "Evidence",
    "Subsets",
    "Trajectory",
]
