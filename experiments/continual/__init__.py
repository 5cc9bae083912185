"""Learn and forget in any order: does least squares forget exactly, and at what price?

Question: classes come in phases and deletion requests in between (rows, users, classes,
tasks; rows learned again, labels corrected, rows that were never learned). Is a ridge
head on random features (ACU) after each of them the one that never saw the rows?
Command: ``python -m experiments.continual`` (digits, about a minute on two CPU cores);
``--data.name fashion_mnist --data.dir FOLDER`` for Fashion-MNIST (minutes).
Expect: ACU equals the ridge regression solved anew to 1e-8, bit for bit a state without
history, and refuses what it never learned, with no row stored. Heads trained by
gradients need all rows; fine-tuning and SSD stay at a visible distance from retraining.
Continual learners (EWC, Fisher merging, refresh learning) store no row and forget
roughly.
Protocol of Zhuang et al. 2022 (ACIL, arXiv 2205.14922) and Tang et al. 2025 (ACU, arXiv
2505.12239): backbone trained on the first half of the classes, then phases.
"""

from experiments.continual import config, measure, show
from experiments.frame.study import Study

STUDY = Study(
    "continual",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    x64=True,
)
