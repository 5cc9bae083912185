"""What does the state of analytic unlearning reveal of rows, deleted and not?

Question: a ridge head keeps the sums G = Σ x xᵀ and Q = Σ x yᵀ, no rows. What can be
read from them: by whoever saw the state before and after a deletion (the rows, their
labels, the images behind them), and by whoever holds the present state and a guess
(was it learnt)? What does noise with (epsilon, delta) change, and what does it cost?
Command: ``python -m experiments.state_privacy`` (digits, below a minute on two CPU
cores); ``--data.name fashion_mnist --data.dir FOLDER`` for Fashion-MNIST (minutes).
Expect: one deleted row comes back to rounding, and with the kernel its image; so do
several rows, as long as they are few for the zeros of a ReLU. The present state tells
rows within from others when rows are few for each feature; it tells a deleted row no
better than chance, for it is bit for bit the state that never had it. Noise for any
usual epsilon ruins the reconstruction.
"""

from experiments.frame.study import Study
from experiments.state_privacy import config, measure, show

STUDY = Study(
    "state_privacy",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    x64=True,
)
