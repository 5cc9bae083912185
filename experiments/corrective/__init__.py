"""Some training data is bad and only a part of it was found: who corrects the model?

Question: a share of the training set was manipulated (a backdoor, or the labels of two
classes swapped), and only a fraction of the bad examples is known. Which method removes
the effect of all of them? Retraining without the known ones is no oracle here: it
learns from the rest again.
Command: ``python -m experiments.corrective`` (digits, some minutes on two CPU cores);
``--data.name fashion_mnist --data.dir FOLDER`` for Fashion-MNIST.
Expect: for the backdoor, as Goel et al. 2024 (arXiv 2402.14015) report on CIFAR-10,
retraining, fine-tuning and SCRUB heal late, near a fraction of 1, dampening (SSD,
Potion) early and at a cost on clean data; for swapped labels dampening fails.

No strength is chosen by test accuracy, but the rule below was settled after first runs
on digits had been seen (seeds 0 to 2): ``--first 100`` takes seeds that it never saw.
How hard a method forgets is the weakest of its strengths after which the known bad
examples are predicted with their bad labels at most ``rho`` times as often as before
(Potion's own rule), the other training examples with theirs at least ``keep`` times;
where none is, the one of the latter that comes nearest. Other hyper-parameters are
those of ``experiments.compare``.
"""

from experiments.corrective import config, measure, show
from experiments.frame.study import Study

STUDY = Study(
    "corrective",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
)
