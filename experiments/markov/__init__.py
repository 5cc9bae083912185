"""Forgetting in sequences whose true distribution is known, first and second order.

Question: a small transformer has learnt a mixture of Markov chains and forgets two of
them. Which methods come nearest to retraining, at equal gradients and equal trials, and
does curvature help beyond signs of momentum?
Command: ``python -m experiments.markov`` (some minutes on two CPU cores).
Expect: the floor, one retrained model against another, far below every method on the
forgotten chains; the retained chain near the truth for all that hold it.
"""

from experiments.frame.study import Study
from experiments.markov import config, measure, show

STUDY = Study(
    "markov",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
)
"""The command ``python -m experiments.markov``."""
