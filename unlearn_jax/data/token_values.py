"""Sequences of which nothing is asked, or that a model has no words for."""

import jax.numpy as jnp
import numpy as np

from unlearn_jax.types import Batch


def check_tokens(batch: Batch, there: np.ndarray, words: int, name: str) -> None:
    """Refuse tokens that are not of the model's alphabet, and empty masks.

    An embedding that is asked for a row beyond its last one gives the last one, and the
    mean over no token is 0: either would train on, and nobody would hear of it.

    Args:
        batch: Targets (n, t), an example of which one at least is asked for; inputs of
            integers are tokens of the same alphabet, negative ones padding.
        there: (n,) examples that count.
        words: Tokens of the model's vocabulary.
        name: What the sentence calls the batch.

    Raises:
        ValueError: a token to read that the model has none for, or an example of which
            no token is asked for.
    """
    read = batch.inputs
    if hasattr(read, "dtype") and jnp.issubdtype(read.dtype, jnp.integer):
        tokens = np.asarray(read).reshape(len(there), -1)
        strange = (tokens >= words) & there[:, None]
        if strange.any():
            row, place = (int(i) for i in np.argwhere(strange)[0])
            raise ValueError(
                f"{name}: got {int(strange.sum())} tokens to read that the model does "
                f"not know, the first is {int(tokens[row, place])} at example {row}, "
                f"expected below its {words}: take the tokeniser that it was trained "
                "with, or a model with a larger vocabulary"
            )
    mute = there & ~(np.asarray(batch.targets) >= 0).any(axis=-1)
    if mute.any():
        raise ValueError(
            f"{name}: got {int(mute.sum())} examples of which no token is asked for, "
            f"the first is example {int(np.argmax(mute))}, expected a target of at "
            "least 0 in each: drop them, or give them weight 0"
        )
