"""Hundreds of models on random subsets, and what a linear map makes of them.

Question: what do members of an ensemble trained on random halves of the data look like
on examples that they have seen and that they have not, and how well does a datamodel
fitted to some of them predict the others?
Command: ``python -m experiments.datamodels`` (digits, two or three minutes on two CPU
cores); ``--where local --workers 2`` in two processes, ``--where slurm --workers 8
--slurm timeout_min=60`` as an array of SLURM jobs. Killed at any moment the same
command goes on: at most the pieces under way are lost. ``--members 2048`` later extends
the ensemble that is there. Other studies read it with ``unlearn_jax.ensembles``.
Expect: members are right more often on what they have seen; the linear datamodelling
score rises with the number of members without levelling off, since there are more
training examples than members (Ilyas et al. 2022, arXiv 2202.00622, Figure 4).
"""

import functools
import sys
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments._datamodels import (
    Config,
    Setting,
    build,
    presets,
    remake,
    slurm_options,
)
from experiments._study import Drawing, Findings, Note, about, parse, study, table
from experiments.frame.command import main
from experiments.frame.config import word_after
from experiments.frame.progress import progress
from unlearn_jax.attribution.datamodel import fit_datamodel
from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.ensembles.read import Ensemble
from unlearn_jax.ensembles.train import train_ensemble
from unlearn_jax.evaluation.datamodelling_score import (
    group_effects,
    linear_datamodelling_score,
)
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.plot_datamodels import score_figure
from unlearn_jax.results.run import Run
from unlearn_jax.storage.write import readable_bytes

_BLOCK = 32
"""Members whose outputs are in memory at once."""


def command(arguments: Sequence[str]) -> int:
    """Parse, train, fit, report."""
    words = list(arguments)
    name = word_after(words, "--data.name") or "digits"
    prog = "python -m experiments.datamodels"
    config = parse(Config, presets(name), words, prog, __doc__)
    setting = build(config)
    slurm_options(config)
    return study(
        "datamodels",
        config,
        setting.dataset.title,
        lambda: work(config, setting),
        model=config.model.name,
    )


def work(config: Config, setting: Setting) -> Any:
    """Train what is missing, then look at the outputs."""
    learner, data, points, plan = remake(config)
    ensemble = train_ensemble(
        setting.folder,
        learner,
        data,
        points,
        plan,
        chunk=config.chunk or None,
        members=config.how,
        label=f"train {len(plan.keys)} members",
        where=config.where,
        workers=config.workers or None,
        remake=functools.partial(remake, config),
        slurm=slurm_options(config),
    )
    print(f"ensemble: {ensemble.folder}", file=sys.stderr)
    with progress("look at the outputs", 1):
        seen = look(ensemble, setting)
    with progress("fit datamodels", 1):
        scores = judge(config, setting, ensemble)
    size = ensemble.count * ensemble.points * int(np.prod(ensemble.shape))
    size *= jnp.dtype(ensemble.dtype).itemsize
    per_member = ensemble.seconds / ensemble.count
    notes = [
        Note("ensemble", "members", ensemble.count, "1"),
        Note("ensemble", "train_seconds", per_member, "s"),
        Note("ensemble", "outputs_bytes", size, "B"),
    ]
    for split, own in seen.items():
        notes += [Note("ensemble", k, v, "1", split=split) for k, v in own.items()]
    for members, score in scores.items():
        request = f"{members} members"
        notes += [
            Note("datamodel", "lds", score.value, "1", request),
            Note("datamodel", "lds_stderr", score.stderr, "1", request),
        ]

    def show(run: Run) -> Findings:
        lines = _tables(config, setting, ensemble, seen, scores, size, run)
        rows = [
            {"members": m, "score": s.value, "stderr": s.stderr}
            for m, s in scores.items()
        ]
        caption = (
            f"Linear datamodelling score on {config.held_out} further members against "
            f"the members that the datamodel is fitted to; {config.queries} test "
            "margins, ± bootstrap standard error."
        )
        drawing = Drawing("datamodels", score_figure(rows), rows, caption)
        return Findings([], lines, [drawing])

    return notes, show


def look(ensemble: Ensemble, setting: Setting) -> dict[str, dict[str, float]]:
    """Accuracy, margin and its spread over members, on three kinds of examples.

    The spread is that of one example's margin over the members that have (or have not)
    seen it, as a mean over examples.
    """
    train, test = setting.dataset.splits
    targets = np.concatenate([np.asarray(train.targets), np.asarray(test.targets)])
    n = len(train.targets)
    masks = setting.masks.astype(bool)
    kinds = {
        "train, in the subset": lambda m: np.pad(m, ((0, 0), (0, len(targets) - n))),
        "train, left out": lambda m: np.pad(~m, ((0, 0), (0, len(targets) - n))),
        "test": lambda m: np.tile(np.arange(len(targets)) >= n, (len(m), 1)),
    }
    sums = {name: np.zeros((4, len(targets))) for name in kinds}
    rates: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
    for first in range(0, ensemble.count, _BLOCK):
        block = slice(first, min(first + _BLOCK, ensemble.count))
        outputs = ensemble.outputs(block)
        right = outputs.argmax(axis=-1) == targets
        margins = np.asarray(
            [margin(jnp.asarray(one), jnp.asarray(targets)) for one in outputs]
        ).astype(np.float64)
        for name, chosen in kinds.items():
            there = chosen(masks[block])
            rates[name].append((right & there).sum(1) / np.maximum(there.sum(1), 1))
            parts = (there, margins * there, margins**2 * there, right & there)
            sums[name] += np.stack([part.sum(axis=0) for part in parts])
    found = {}
    for name, (count, total, squares, _) in sums.items():
        often = count > 1
        count, total, squares = (x[often] for x in (count, total, squares))
        spread = np.sqrt(np.maximum(squares - total**2 / count, 0) / (count - 1))
        accuracy = np.concatenate(rates[name])
        found[name] = {
            "accuracy": float(accuracy.mean()),
            "accuracy_spread": float(accuracy.std(ddof=1)),
            "margin": float(np.mean(total / count)),
            "margin_spread": float(spread.mean()),
        }
    return found


def judge(config: Config, setting: Setting, ensemble: Ensemble) -> dict[int, Any]:
    """LDS of datamodels fitted to more and more members, on members never used."""
    train, test = setting.dataset.splits
    random = np.random.default_rng(config.seed)
    asked = np.sort(random.permutation(len(test.targets))[: config.queries])
    outputs = ensemble.outputs(points=len(train.targets) + asked)
    targets = jnp.asarray(np.asarray(test.targets)[asked])
    margins = np.stack([np.asarray(margin(jnp.asarray(o), targets)) for o in outputs])
    # The judges come first, so that they stay judges when members are added.
    judges, others = slice(0, config.held_out), slice(config.held_out, None)
    masks, values = setting.masks[others], margins[others]
    counts = sorted({config.members // 8, config.members // 2, config.members})
    counts = sorted({*counts, config.members // 4})
    scores = {}
    for count in counts:
        fitted = fit_datamodel(masks[:count], values[:count])
        effects = np.asarray(fitted.coef)
        predicted = group_effects(effects, setting.masks[judges])
        scores[count] = linear_datamodelling_score(
            predicted, margins[judges].T.astype(predicted.dtype), seed=config.seed
        )
    return scores


def _tables(
    config: Config,
    setting: Setting,
    ensemble: Ensemble,
    seen: dict[str, dict[str, float]],
    scores: dict[int, Any],
    size: int,
    run: Run,
) -> list[Any]:
    n = setting.masks.shape[1]
    rows = [
        [
            name,
            f"{100 * own['accuracy']:.2f} ± {100 * own['accuracy_spread']:.2f}",
            own["margin"],
            own["margin_spread"],
        ]
        for name, own in seen.items()
    ]
    header = ("examples", "accuracy (%)", "margin (nats)", "spread of a margin (nats)")
    notes = (
        f"{ensemble.count} members, each on {int(setting.masks[0].sum())} of {n} "
        f"training examples; {1e3 * ensemble.seconds / ensemble.count:.3g} ms of "
        f"training each (compilation left out); outputs on {ensemble.points} points "
        f"take {readable_bytes(size)}.",
        "Accuracy: ± standard deviation over members. Spread: standard deviation over "
        "members of one example's margin, mean over examples.",
    )
    first = table(
        "members", f"Members of the ensemble. {about(run)}", header, rows, notes
    )
    lines = [[str(m), mean_and_error(s.value, s.stderr)] for m, s in scores.items()]
    notes = (
        f"Ridge regression of {config.queries} test margins on the masks, l2 by leave "
        f"one out; judged on {config.held_out} members that no fit has seen.",
        "± bootstrap standard error over queries and members. Each judge is one "
        "training run: its own randomness bounds the score from above.",
    )
    second = table(
        "score",
        f"Datamodels. {about(run)}",
        ("members fitted to", "LDS ↑"),
        lines,
        notes,
    )
    return [first, second]


if __name__ == "__main__":
    main(command)
