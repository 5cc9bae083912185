"""What the models of several shards say together."""

from typing import Any

import numpy as np
from jaxtyping import Float


def together(
    outputs: Float[np.ndarray, "s n k"], votes: Any, *, labelled: bool, majority: bool
) -> Float[np.ndarray, "n k"]:
    """Weighted mean of what each model says.

    Args:
        outputs: Of each model.
        votes: (s,) weight of each; models of weight 0 are not heard.
        labelled: Outputs are logits, which become probabilities.
        majority: Each model says its class alone, the lowest of several equal ones.
    """
    weights = np.asarray(votes, np.float64)
    heard = np.flatnonzero(weights > 0)
    said = outputs[heard]
    if majority:
        said = np.eye(said.shape[2])[said.argmax(2)]
    elif labelled:
        said = np.exp(said - said.max(2, keepdims=True))
        said /= said.sum(2, keepdims=True)
    share = weights[heard] / weights[heard].sum()
    return np.einsum("s,snk->nk", share, said)
