"""All methods on the same requests, against the oracle and its own noise.

Question: which method leaves the model that retraining would have given, and at what
price?
Command: ``python -m experiments.compare`` (digits, a minute and a half on two CPU
cores); ``--scale smoke|small|paper`` and ``--data.name`` choose a preset, every value
of which can be set. ``--sweep ssd.alpha=1,3,10`` tries several settings of a method;
``--methods my_file.py:my_method`` brings your own.
Expect: "original" shows what forgetting has to change; "oracle vs oracle" shows how
small a gap can be. A method inside the floor cannot be told from retraining.
"""

from experiments.compare import config, measure, presets, setting, show
from experiments.frame.study import Study

STUDY = Study(
    "compare",
    __doc__,
    presets.presets,
    setting.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    files=config.files,
)
