"""Do influence functions predict retraining, where theory says that they must?

Question: softmax regression has one minimum, so what leaving an example out does to a
test loss can be known to machine precision. How well do the solvers predict it?
Command: ``python -m experiments.truth`` (digits, about a minute on two CPU cores);
``--data.name fashion_mnist --data.dir FOLDER`` for Fashion-MNIST (minutes).
Expect: leave-one-out correlation at least 0.88 and linear datamodelling score at least
0.80 with an exact inverse and with conjugate gradients: what dattri reports for
logistic regression on MNIST (Deng et al. 2024, arXiv 2410.04555).
"""

from experiments.frame.study import Study
from experiments.truth import config, measure, show

STUDY = Study(
    "truth",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    x64=True,
)
