"""A digit is forgotten by generators of other kinds, beside ones that never saw it.

Question: small generators of plain digits, none of them a diffusion transformer. What
do the methods that were published for each draw in the digit's place, what happens to
the others, and how far is that from retraining without it? What of that do curvature
and least squares do in its place?
Command: ``python -m experiments.generators --kind variational`` (a minute or two on one
core for each kind; trained generators are kept and found again).
Expect: curvature alone holds the other digits better the more of it is told; no method
draws what a retrained generator does.
"""

from experiments.frame.study import Study
from experiments.generators import config, measure, setting, show

STUDY = Study(
    "generators",
    __doc__,
    config.presets,
    setting.build,
    measure.measure,
    show.show,
    rules=config.RULES,
)
"""The command ``python -m experiments.generators``."""
