import inspect

import jax
import numpy as np
import pytest
import tiny

from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.train.loss import squared_error

KEY = jax.random.key(0)
LEARNING = [name for name in METHODS if name != "identity"]
NUMERIC = [n for n, entry in METHODS.items() if "classification" not in entry.tasks]
REMOVALS = {
    "influence_removal": {},
    "newton_removal": {},
    "influence_unlearning": {"samples": tiny.COUNT},
    "ssd": {"alpha": 1.0},
    "assd": {},
    "potion": {},
    "fisher_merging": {"epochs": 1},
    "prioritised_finetune": {"epochs": 1},
}


def spoilt(data):
    inputs = data.inputs.copy()
    inputs[5] = np.nan
    return data._replace(inputs=inputs)


@pytest.mark.parametrize("name", LEARNING)
def test_a_method_names_the_row_that_is_not_a_number(name):
    learner, data = tiny.learner("softmax", epochs=1), spoilt(tiny.examples())
    if name in NUMERIC:
        learner, data = learner._replace(loss=squared_error), tiny.numeric(data)
    method, original = METHODS[name].factory(learner), learner.model.init(KEY)
    with pytest.raises(ValueError, match=r"training set: got NaN .* row 5"):
        method.prepare(KEY, original, data)
    with pytest.raises(ValueError, match=r"retain set: got NaN .* row 5"):
        method.forget(KEY, (), original, make_request(data, [1, 2]))
    with pytest.raises(ValueError, match=r"forget set: got NaN .* row 1"):
        method.forget(KEY, (), original, make_request(data, [1, 5]))


@pytest.mark.parametrize("name", [n for n in LEARNING if n not in NUMERIC])
def test_a_method_refuses_labels_that_no_output_stands_for(name):
    learner, data = tiny.learner("softmax", epochs=1), tiny.examples()
    method, original = METHODS[name].factory(learner), learner.model.init(KEY)
    shifted = data._replace(targets=data.targets + 1)
    with pytest.raises(ValueError, match="labels out of range, the first is 3"):
        method.forget(KEY, (), original, make_request(shifted, [1, 4]))


@pytest.mark.parametrize("name", REMOVALS)
def test_under_jit_a_nan_row_comes_out_and_never_the_old_model(name):
    learner, data = tiny.learner("softmax", epochs=1), spoilt(tiny.examples())
    method = METHODS[name].factory(learner, **REMOVALS[name])
    request = make_request(data, [1, 2])
    original = learner.model.init(KEY)

    @tiny.quick_jit
    def removed(data, request):
        state = method.prepare(KEY, original, data)
        return method.forget(KEY, state, original, request)[0]

    assert np.isnan(removed(data, request).params["kernel"]).all()


@pytest.mark.parametrize("inverse", ["cg", "minres", "neumann", "diagonal", "dense"])
def test_no_inverse_turns_a_nan_row_into_no_step(inverse):
    learner, data = tiny.learner("softmax"), spoilt(tiny.examples())
    method = METHODS["influence_removal"].factory(learner, inverse=inverse, max_steps=4)
    request, original = make_request(data, [1, 2]), learner.model.init(KEY)

    @tiny.quick_jit
    def step(data, request):
        state = method.prepare(KEY, original, data)
        return method.forget(KEY, state, original, request)[0]

    assert np.isnan(step(data, request).params["kernel"]).all()


def counts(factory):
    return [
        name
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        and parameter.annotation in (int, int | None)
    ]


@pytest.mark.parametrize("name", [*METHODS, *ATTRIBUTIONS])
def test_a_count_is_never_cut_off(name):
    factory = (METHODS | ATTRIBUTIONS)[name].factory
    for option in counts(factory):
        for value in (2.7, -1, True):
            with pytest.raises(ValueError, match=f"{option} must be"):
                factory(tiny.learner("softmax"), **{option: value})


@pytest.mark.parametrize("name", [*METHODS, *ATTRIBUTIONS])
def test_a_number_that_is_none_is_refused(name):
    factory = (METHODS | ATTRIBUTIONS)[name].factory
    for option, parameter in inspect.signature(factory).parameters.items():
        if parameter.annotation in (float, float | None):
            with pytest.raises(ValueError, match=f"{option} must be a finite number"):
                factory(tiny.learner("softmax"), **{option: float("nan")})
