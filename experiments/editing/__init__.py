"""Concepts are erased one after another: what sums that are carried are worth.

Question: sentences that name digits are erased one at a time, each sent to the same
sentence with another digit. Published loops edit the maps of the request before, and
forget what it asked; carried sums solve all requests anew. What is still erased, what
is still drawn, and what does a request cost, after 10, 50 and 100?
Command: ``python -m experiments.editing`` (the generator of ``experiments.canvas``,
found again; minutes on two CPU cores).
Expect: carried sums are the batch of all requests to rounding and erase every
sentence, also those that nobody asked for; they pay in what is kept, which is stated
once while requests pile up; the reset restates it and keeps more; edits in the least
used directions keep all and erase less.
"""

from experiments.editing import config, measure, show
from experiments.frame.study import Study

STUDY = Study(
    "editing",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
)
"""The command ``python -m experiments.editing``."""
