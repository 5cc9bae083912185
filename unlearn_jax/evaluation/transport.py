"""How far the predictions of two models are moved: Wasserstein distance."""

import numpy as np

from unlearn_jax.evaluation.outputs import Scores, finite_outputs


def wasserstein(a: Scores, b: Scores) -> float:
    """Wasserstein-1 distance of the predictions on the same examples, whoever is whose.

    The mean absolute difference of sorted predictions, averaged over outputs. It sees
    how predictions are spread, not on which example which one stands: two models that
    differ on every example can be at distance 0 (``output_difference`` sees that).

    Unit: the targets', range 0 to infinity. Direction: down, but no further than oracle
    against oracle, which lies above 0.

    Source: Tarun et al. 2023, arXiv 2210.08196. Differs: on the examples as they are;
        the released code draws augmented ones.
    """
    ours, theirs = (np.sort(finite_outputs(scores), axis=-2) for scores in (a, b))
    return float(np.mean(np.abs(ours - theirs)))
