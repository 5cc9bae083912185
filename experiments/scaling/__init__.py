"""Seconds and bytes against the number of examples and of parameters.

Question: does curvature stay affordable as data and nets grow?
Command: ``python -m experiments.scaling`` (a minute or two on two CPU cores).
Expect: seconds in proportion to examples (slope 1) and bytes of temporaries that do not
grow with them (slope 0), since everything runs in batches of one size; both about in
proportion to parameters once the matrices are large. Nothing costs more than a few
gradients.
"""

from experiments.frame.study import Study
from experiments.scaling import config, measure, show

STUDY = Study(
    "scaling",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
)
