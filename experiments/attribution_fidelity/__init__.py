"""Do attributions predict what retraining on another subset gives, at what compute?

Question: every attribution says what training weights do to test margins. Models are
then trained on new random halves of the data: how well are their margins ordered
(linear datamodelling score, LDS), and does a margin fall as predicted when the
strongest supporters of a test example are taken out?
Command: ``python -m experiments.attribution_fidelity`` (digits, minutes on two CPU
cores); ``--data.name fashion_mnist --data.dir FOLDER`` for the first 2,000 images of
Fashion-MNIST, ``--model.name cnn`` for a small convolutional net. Variants compete as
``--attributions trak trak:kernel=newton tracin:kind=grad_dot --removals trak``. Trained
ensembles are kept below ``--results``; the same command goes on where it was.
Expect: below 1 even for a perfect predictor, for retraining is noisy: the line
"attainable". dattri's figure for an MLP on MNIST-10 has conjugate gradients at LDS
0.26, TRAK of 1, 10 and 50 models at 0.11, 0.33 and 0.45, and TracIn at 0.15 (Deng et
al. 2024, arXiv 2410.04555): more models help more than a better curvature. EK-FAC
influence beats plain products of gradients (0.44 against 0.12 for GPT-2 in
kronfluence's README). Datamodels by ridge need as many members as examples. The
metagradient is exact, and says nothing where training is so chaotic that a weight moved
by 1e-5 changes margins as much as another seed: this recipe. With
``--recipe.learning-rate 0.02 --recipe.batch-size 512 --recipe.epochs 60`` it is the
best of one model.
"""

from experiments.attribution_fidelity import config, measure, setting, show
from experiments.frame.study import Study

STUDY = Study(
    "attribution_fidelity",
    __doc__,
    config.presets,
    setting.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    files=config.files,
    model="mlp",
)
