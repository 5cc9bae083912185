"""What a study runs is refused where the device cannot hold it."""

import jax.numpy as jnp
import pytest
import tiny

from experiments.frame.price import priced
from unlearn_jax.evaluation import cost


def test_too_little_memory_is_told_before_anything_runs(monkeypatch):
    learner, data, programs = tiny.learner("softmax"), tiny.examples(), {}
    given = learner, data, lambda x: jnp.outer(x, x), jnp.arange(64.0)
    monkeypatch.setattr(cost, "free_memory", lambda: 1000)
    monkeypatch.setattr("experiments.frame.price.run", lambda *_: pytest.fail("it ran"))
    with pytest.raises(MemoryError, match=r"ssd forget needs 32.8 kB .* 1 kB are free"):
        priced(*given, programs=programs, name=("ssd", "forget"))
    monkeypatch.undo()
    value, _ = priced(*given, programs=programs, name=("ssd", "forget"))
    assert value.shape == (64, 64)
