"""A class is erased from a small image generator, beside one that never saw it.

Question: a diffusion transformer draws digits in styles, by captions. Closed-form edits
of its key and value maps take one class away (``--request style`` or ``pair``: a style,
or one class in one style): what do its prompts draw then, what happens to all others,
does an embedding or a sentence bring it back, and how far is all that from retraining
without it?
Command: ``python -m experiments.canvas`` (five trainings of minutes on two CPU cores,
kept and found again).
Expect: edits in milliseconds that are perfect on plain prompts, draw the anchor in the
class's place, which no retrained model does, and that the closed-form attack undoes.
"""

from experiments.canvas import config, measure, setting, show
from experiments.frame.study import Study

STUDY = Study(
    "canvas",
    __doc__,
    config.presets,
    setting.build,
    measure.measure,
    show.show,
    rules=config.RULES,
)
"""The command ``python -m experiments.canvas``."""
