"""Settings chosen without the oracle, and how far from its choice they are.

Question: who cannot retrain must choose a method's settings by something else; how much
nearer to retraining would the best setting that was tried have been?
Command: ``python -m experiments.tune`` (digits, about a quarter of an hour on two CPU
cores); ``--data.name fashion_mnist`` for 10,000 images; ``--trials``, ``--methods`` and
``--sweep ssd.alpha=1,3,10`` (instead of a method's grid) choose what is tried.
Expect: the regret of each criterion in floors, for each method; 0 is the oracle's own
choice. Seeds and forget sets are ones that no other table uses.
"""

from experiments.compare.config import files
from experiments.frame.study import Study
from experiments.tune import config, measure, show, trials

STUDY = Study(
    "tune",
    __doc__,
    config.presets,
    trials.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    files=files,
)
