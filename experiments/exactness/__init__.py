"""Is least squares still exact after a thousand requests, however ill-conditioned?

Question: rows and classes leave, come and come back. Does ridge regression as carried
along, as sums, as an inverse, as both, equal the one solved anew from the rows left?
Command: ``python -m experiments.exactness`` (digits, minutes on two CPU cores);
``--scale paper --data.dir FOLDER`` for Fashion-MNIST, 2,048 random features of a
trained CNN and 1,000 requests (about a quarter of an hour).
Expect: sums have no history, bit for bit, and their solution is the true one to the
last digits, closer than a fresh solve in float64. The inverse alone drifts, the faster
the worse the condition, and refuses to learn under a ridge so small that it could not
forget; with the sums beside it the drift is seen and repaired.
The truth is a solution in integers with a proven error.
"""

from experiments.exactness import config, measure, show
from experiments.frame.study import Study

STUDY = Study(
    "exactness",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    x64=True,
)
