"""Which layers may be tuned: every choice of six groups, beside two that are found.

Question: a small diffusion transformer has seen no three and no inverted seven. A
publisher freezes half of its groups of layers so that users who tune it on both learn
sevens and no threes: is the choice that FreezeAsGuard learns a good one among all? And
of groups to tune on a few repeated images: which remember them, does the proxy of
MemControl say so, and how much of the front does a search find?
Command: ``python -m experiments.freezing`` (some minutes on one core).
Expect: with so few groups no choice keeps one digit out and lets the other in, and the
one that is learnt is none of the better; the proxy follows copies, and a search of a
quarter of the choices finds nearly all of the front's area.
"""

from experiments.frame.study import Study
from experiments.freezing import config, measure, setting, show

STUDY = Study(
    "freezing",
    __doc__,
    config.presets,
    setting.build,
    measure.measure,
    show.show,
    rules=config.RULES,
)
"""The command ``python -m experiments.freezing``."""
