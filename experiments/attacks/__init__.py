"""How much attacks on prompts miss of the exact worst case, which is enumerated.

Question: after forgetting, how often does some word before the prompt bring the concept
back? Vocabularies of published models are too large to tell; this one has 41 words, so
that every prefix is tried, beside the attacks that the literature searches with.
Command: ``python -m experiments.attacks`` (the generators of ``experiments.canvas``,
found again; a minute a method on two CPU cores).
Expect: every edit has a word before the prompt that brings the concept back in half of
the images, which attacks on embeddings nearly always do; a gradient search in the
vocabulary finds no more than as many words at random.
"""

from experiments.attacks import config, measure, show
from experiments.canvas import setting
from experiments.frame.study import Study

STUDY = Study(
    "attacks",
    __doc__,
    config.presets,
    setting.build,
    measure.measure,
    show.show,
    rules=config.RULES,
)
"""The command ``python -m experiments.attacks``."""
