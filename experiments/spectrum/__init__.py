"""Bulk and outliers: the spectrum of the Hessian of a trained net.

Question: how many directions carry curvature, how large is the rest, and how much of it
is negative?
Command: ``python -m experiments.spectrum`` (digits, a minute or two on two CPU cores).
Expect: a bulk near zero with both signs, and about as many outliers as classes (Sagun
et al. 2017, arXiv 1706.04454; Papyan 2019, arXiv 1901.08244), the largest some
thousand times the bulk's width.
"""

from experiments.frame.study import Study
from experiments.spectrum import config, measure, show

STUDY = Study(
    "spectrum",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    x64=True,
)
