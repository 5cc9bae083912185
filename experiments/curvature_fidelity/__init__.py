"""Every approximation of curvature against the matrix written out.

Question: how wrong is each diagonal, each product and each inverse product on a small
trained net, what does it cost, and does the error matter to the unlearned model?
Command: ``python -m experiments.curvature_fidelity`` (digits, minutes on two CPU
cores); ``--scale smoke`` ends within a minute.
Expect: on the mlp exact diagonals and products agree to float32 rounding (1e-6), on the
cnn to 1e-3, since rounding takes a few examples over a kink; random estimates
fall as one over the square root of the work; EK-FAC is nearer than K-FAC, and both are
nearer than the diagonal. On the mlp influence with an accurate inverse comes nearer to
the oracle than doing nothing, which counts as 1; on the cnn, which retraining leads
elsewhere, it does not.
"""

from experiments.curvature_fidelity import config, measure, show
from experiments.frame.study import Study

STUDY = Study(
    "curvature_fidelity",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    files=config.files,
    x64=True,
)
