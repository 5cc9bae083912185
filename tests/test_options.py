import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.methods import METHODS
from unlearn_jax.options import check_options


def factory(
    learner,
    *,
    epochs: int = 1,
    rest: int = 1,
    rate: float = 0.1,
    scale: float = 1.0,
    size: int | None = None,
    leaky: bool = False,
    kind: str = "plain",
):
    return learner, epochs, rest, rate, scale, size, leaky, kind


def build(learner, **options):
    check_options(factory, options, signed=("scale",), zero=("rest",))
    return factory(learner, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epochs": 2.7}, "factory: epochs must be a whole number, got 2.7"),
        ({"epochs": 2.0}, "epochs must be a whole number, got 2.0"),
        ({"epochs": True}, "epochs must be a whole number, got True"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"rest": -1}, "rest must be at least 0, got -1"),
        ({"size": 1.5}, "size must be a whole number, got 1.5"),
        ({"rate": float("nan")}, "rate must be a finite number, got nan"),
        ({"rate": float("inf")}, "rate must be a finite number, got inf"),
        ({"rate": -0.1}, "rate must not be negative, got -0.1"),
        ({"rate": "fast"}, "rate must be a number, got 'fast'"),
        ({"scale": -float("inf")}, "scale must be a finite number"),
        ({"leaky": 3}, "leaky must be True or False, got 3"),
        ({"kind": 3}, "kind must be a str, got 3"),
    ],
)
def test_what_does_not_fit_is_refused_and_never_cut_off(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(None, **options)


def test_what_fits_passes_unchanged():
    options = {"epochs": np.int64(2), "rest": 0, "rate": 1, "scale": -2.0}
    assert build("learner", **options)[:5] == ("learner", 2, 0, 1, -2.0)
    assert build(None, size=3, rate=jnp.asarray(0.5))[5] == 3
    assert build(None, size=None)[5] is None


def test_the_checked_factory_keeps_its_name_and_options():
    ssd = METHODS["ssd"].factory
    assert ssd.__name__ == "ssd"
    with pytest.raises(ValueError, match="ssd: importance_batch"):
        check_options(ssd, {"importance_batch": 0})
