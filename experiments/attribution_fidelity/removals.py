"""Take out the supporters that attributions name, and retrain without them."""

from collections.abc import Iterator, Mapping

import numpy as np

from experiments.attribution_fidelity.evidence import REMOVALS, margins_of, retrained
from experiments.attribution_fidelity.setting import Setting
from experiments.frame.bench import Bench
from unlearn_jax.evaluation.counterfactual import (
    compare,
    flips,
    predicted_changes,
    random_removals,
    top_supporters,
    weights_without,
)
from unlearn_jax.results.rows import Row

RANDOM = "random"
"""The control: examples drawn at random, with the first attribution's prediction."""


def remove_supporters(
    bench: Bench,
    setting: Setting,
    before: np.ndarray,
    effects: Mapping[str, np.ndarray],
) -> Iterator[Row]:
    """What became of each query's margin; changes by query are published.

    Args:
        bench: Of the run.
        setting: Of the study.
        before: (m, q, k) outputs of the queries by models of all examples.
        effects: (q, n) by label, of all whose supporters are taken out.
    """
    config, count = setting.config, setting.config.removal_queries
    ones = np.ones(len(setting.problem.train.targets))
    chosen, predicted = {}, {}
    for name, all_effects in effects.items():
        own = all_effects[:count]
        if len(own) < count or not count:
            continue
        chosen[name] = top_supporters(own, config.removed)
        predicted[name] = predicted_changes(own, chosen[name])
        if RANDOM not in chosen:
            drawn = random_removals(count, config.removed, ones, seed=config.seed)
            chosen[RANDOM] = drawn
            predicted[RANDOM] = predicted_changes(own, drawn)
    if not chosen:
        return
    weights = np.concatenate([weights_without(each, ones) for each in chosen.values()])
    rows = np.tile(weights.astype(np.uint8), (config.removal_retrainings, 1))
    name = "without supporters"
    ensemble = retrained(bench, setting, name, rows, REMOVALS, grows=False)
    outputs = ensemble.outputs(points=setting.asked[:count])
    outputs = outputs.reshape(-1, len(chosen), count, *outputs.shape[1:])
    before = before[:, :count]
    for place, name in enumerate(chosen):
        # Models without the supporters of query q, at query q.
        after = np.einsum("rqqk->rqk", outputs[:, place])
        sides = [margins_of(setting, side) for side in (before, after)]
        found = compare(predicted[name], *sides)
        bench.publish(f"removals/{name}", np.stack(found[:3]))
        at = {"supporters": name}
        yield Row("predicted_shift", found.mean_predicted, "nats", at)
        yield Row("shift", found.mean_shift, "nats", at)
        yield Row("shift_stderr", found.mean_stderr, "nats", at)
        yield Row("sign_agreement", found.sign_agreement, "%", at)
        targets = np.asarray(setting.queries.targets[:count])
        rightly = [side.argmax(axis=-1) == targets for side in (before, after)]
        if (rightly[0].mean(axis=0) > 0.5).any():
            labels = flips(*rightly)
            yield Row("flips", labels.share, "%", at)
            yield Row("flips_stderr", labels.stderr, "%", at)
