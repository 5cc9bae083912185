"""Synthetic outputs of "models" whose truth is known, for the evaluation tests."""

import numpy as np

from unlearn_jax.evaluation.outputs import Scores, SplitOutputs


def scores(rng, n, *, k=4, lead=1.0, members=None, targets=None):
    """Gaussian logits whose correct one leads by ``lead``."""
    targets = rng.integers(0, k, n) if targets is None else targets
    shape = (n, k) if members is None else (members, n, k)
    outputs = rng.normal(size=shape)
    outputs[..., np.arange(n), targets] += lead
    return Scores(outputs.astype(np.float32), targets.astype(np.int32))


def model(rng, *, sizes=(200, 60, 120, 90), lead=1.0, forget_lead=None, like=None):
    """One model; ``like`` another one, to share its targets."""
    leads = [lead, lead if forget_lead is None else forget_lead, lead, lead]
    targets = [None] * 4 if like is None else [s.targets for s in like]
    return SplitOutputs(
        *(
            scores(rng, n, lead=a, targets=t)
            for n, a, t in zip(sizes, leads, targets, strict=True)
        )
    )


def mean_within(values, expected, *, errors=4.0):
    """The mean lies within four of its own standard errors, s / sqrt(repetitions)."""
    values = np.asarray(values)
    error = values.std(ddof=1) / np.sqrt(values.size)
    assert abs(values.mean() - expected) <= errors * error, (values.mean(), error)
