"""Does unlearning give the same distribution of models as retraining?

Question: many originals are unlearned, each by itself, and as many oracles trained.
Where do their margins differ (KLoM), at what compute? Datamodel matching with every
attribution, against fine-tuning, ascent, SCRUB, SSD and removal by the unrolled
response, and matching with true oracles.
Command: ``python -m experiments.dmm`` (digits, minutes on two CPU cores);
``--data.name fashion_mnist --data.dir FOLDER`` for 10,000 images of Fashion-MNIST
(about an hour; ensembles and judgements are kept, the same command goes on).
``--options ssd.alpha=1,3,10`` tries several values, ``--methods`` takes any method.
Expect: matching with true oracles near the floor; what is published for CIFAR-10 is
that matching with attributions comes close to it, and that ascent, fine-tuning and
SCRUB stay well above (Georgiev et al. 2024, arXiv 2410.23232, figures only).
"""

from experiments.dmm import config, measure, setting, show
from experiments.frame.study import Study

STUDY = Study(
    "dmm",
    __doc__,
    config.presets,
    setting.build,
    measure.measure,
    show.show,
    rules=config.RULES,
    files=config.files,
)
