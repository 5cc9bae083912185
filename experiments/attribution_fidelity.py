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

from collections.abc import Sequence
from typing import Any

from experiments._attribution_run import (
    ask_all,
    remove_supporters,
    train_evidence,
    train_truth,
)
from experiments._attribution_setting import Config, Setting, build, presets
from experiments._attribution_tables import (
    ceiling_of,
    figure_rows,
    lines_of,
    notes_of,
    tables_of,
)
from experiments._study import Drawing, Findings, parse, resumable_study
from experiments.frame.command import main
from experiments.frame.config import word_after
from experiments.frame.study import data_digest
from unlearn_jax.results.plot_attribution import attribution_figure
from unlearn_jax.results.run import Run
from unlearn_jax.storage.store import Store


def command(arguments: Sequence[str]) -> int:
    """Parse, train, ask, retrain, report."""
    words = list(arguments)
    data = word_after(words, "--data.name") or "digits"
    model = word_after(words, "--model.name") or "mlp"
    prog = "python -m experiments.attribution_fidelity"
    config = parse(Config, presets(data, model), words, prog, __doc__)
    setting = build(config)
    return resumable_study(
        "attribution_fidelity",
        config,
        setting.dataset.title,
        lambda store: work(store, setting),
        model=config.model.name,
        inputs={"data": data_digest(setting.dataset)},
    )


def work(store: Store, setting: Setting) -> Any:
    """Evidence, truth, effects, removals; then what they say together."""
    known = train_evidence(setting)
    truth = train_truth(setting)
    answers = ask_all(store, setting, known)
    removals = remove_supporters(setting, known, answers)
    lines = lines_of(setting, known, truth, answers)
    ceiling = ceiling_of(setting.config, truth)

    def show(run: Run) -> Findings:
        tables = tables_of(setting, known, lines, answers, ceiling, removals, run)
        rows = figure_rows(lines, ceiling, truth, removals)
        caption = (
            "Left: linear datamodelling score against seconds (training of what is "
            "read, preparation, effects). Middle: predicted against retrained margin "
            "of one test example on new subsets, both without their mean. Right: "
            "change of margins when the strongest supporters are taken out."
        )
        figure = attribution_figure(rows)
        return Findings([], tables, [Drawing("attribution", figure, rows, caption)])

    return notes_of(setting, lines, answers, ceiling, removals), show


if __name__ == "__main__":
    main(command)
