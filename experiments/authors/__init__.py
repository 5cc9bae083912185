"""Forgetting authors who never lived, beside models that never heard of them.

Question: a small decoder of bytes has learnt questions about authors and forgets some
of them. Which methods end like retraining, at equal gradients and equal trials: in what
is said, in TOFU's numbers, and in how fast other facts bring the forgotten back?
Command: ``python -m experiments.authors`` (under an hour on two quiet CPU cores);
``--scale paper --weights FILE.gguf --tofu FOLDER`` for SmolLM2 on TOFU, on an
accelerator.
Expect: the floor, one retrained model against another, below every method on the
forgotten authors; utility of what was retained near the original's.
"""

from experiments.authors import build, config, measure, show
from experiments.frame.study import Study

STUDY = Study(
    "authors",
    __doc__,
    config.presets,
    build.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    files=config.files,
)
"""The command ``python -m experiments.authors``."""
