"""How much attacks on prompts miss of the exact worst case, which is enumerated.

Question: after forgetting, how often does some word before the prompt bring the concept
back? Vocabularies of published models are too large to tell; this one has 41 words, so
that every prefix is tried, beside the attacks that the literature searches with.
Command: ``python -m experiments.attacks`` (the generators of ``experiments.canvas``,
found again; a minute a method on two CPU cores).
Expect: few prefixes bring a concept back that plain prompts do not; attacks on
embeddings bring it back whatever the edit; a gradient search in the vocabulary is no
better than trying as many words at random.
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
