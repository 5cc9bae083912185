"""Forgetting authors of TOFU in a published model, beside models that never saw them.

Question: as ``experiments.authors``, of SmolLM2-135M on TOFU's forget01 and forget05.
Command: ``python -m experiments.tofu --weights FILE.gguf --tofu FOLDER [--split
forget05]``. The scale ``small`` is a reduced one, for half an hour on a busy CPU core:
adapters of rank 8 on the last four of thirty blocks, below which nothing is trained and
everything is run once; the vocabulary cut to the tokens that occur; the first author
of those to forget, 40 questions to retain instead of 3,960, two models. ``--scale
paper`` trains all weights on all of TOFU, on an accelerator.
Expect: a floor that is wide (two models, few questions), and what is above it.

It needs files that are nowhere here, so that it is not in the table of studies.
"""

from experiments.authors import measure, show
from experiments.authors.config import RULES, files
from experiments.frame.study import Study
from experiments.tofu import config

STUDY = Study(
    "tofu",
    __doc__,
    config.presets,
    config.build,
    measure.measure,
    show.show,
    rules=RULES,
    files=files,
)
"""The command ``python -m experiments.tofu``."""
