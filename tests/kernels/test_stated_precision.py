"""No product outside of a model is left at the precision of the device.

Models are made to state one of their own ("high", which nothing else states), so that
what states none is not a model's.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
from described import shaped
from programs import programs, small_nets
from test_lowering import PROGRAMS
from test_precision import inner_programs

from unlearn_jax.evaluation.state_privacy import reconstruct_removed
from unlearn_jax.methods.certified_linear import certified_fit, certified_remove
from unlearn_jax.methods.state_noise import NoisyStatistics, noisy_ridge
from unlearn_jax.models.model import Decoding, Model
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

EVERY_DAY = ("attribution", "ridge", "spectrum", "solver", "projection")
OF_A_MODEL = ("kernels conv2d",)
"""Programs of a layer itself."""
LIKE = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
ROWS = Batch(LIKE((9, 4)), LIKE((9, 2)), LIKE((9,)))
KEY = jax.eval_shape(lambda: jax.random.key(0))


def unstated(program):
    """Names of the products that state no precision, with where they are written."""
    for equation in program.eqns:
        product = equation.primitive.name in ("dot_general", "conv_general_dilated")
        if product and equation.params["precision"] is None:
            yield f"{equation.primitive.name} {equation.source_info.name_stack}"
        for inner in inner_programs(equation):
            yield from unstated(inner)


def high(function):
    @functools.wraps(function)
    def run(*arguments, **options):
        with jax.default_matmul_precision("high"):
            return function(*arguments, **options)

    return run


def stating(kind, monkeypatch, *names):
    """Functions of these fields state a precision in whatever is made of this kind."""
    make = kind.__new__

    def made(cls, *values, **named):
        given = dict(zip(kind._fields, values, strict=False)) | named
        marked = {
            name: high(given[name]) for name in names if callable(given.get(name))
        }
        return make(cls, **given | marked)

    monkeypatch.setattr(kind, "__new__", made)


@pytest.fixture(scope="module")
def marked():
    with pytest.MonkeyPatch.context() as patch:
        stating(Model, patch, "init", "apply", "apply_train", "features")
        stating(Decoding, patch, "extend")
        stating(Objective, patch, "predict")
        yield {program.name: program for program in programs(small_nets())}


def often(name):
    return name.startswith(EVERY_DAY) and not name.endswith(" lm")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (not often(name)))
        for name in PROGRAMS
        if not name.startswith(OF_A_MODEL)
    ],
)
def test_every_product_of_a_program_states_its_precision(name, marked):
    with jax.enable_x64(False):
        function, shapes = marked[name].make()
        whole = jax.make_jaxpr(lambda *arguments: function(*arguments))
        assert list(unstated(whole(*shaped(shapes)).jaxpr)) == []


def test_a_product_without_a_precision_is_found(marked):
    program = jax.make_jaxpr(lambda x: jax.lax.map(lambda row: row @ x, x))
    assert len(list(unstated(program(LIKE((3, 3))).jaxpr))) == 1
    model = Model(*[lambda x: x @ x] * 4)
    program = jax.make_jaxpr(jax.jacobian(jax.jit(model.apply)))
    assert list(unstated(program(LIKE((3, 3))).jaxpr)) == []


OTHERS = {
    "certified_fit": lambda: (
        functools.partial(certified_fit, l2=0.1, sigma=1.0),
        (KEY, ROWS),
    ),
    "certified_remove": lambda: (
        functools.partial(certified_remove, l2=0.1),
        (
            jax.eval_shape(
                functools.partial(certified_fit, l2=0.1, sigma=1.0), KEY, ROWS
            ),
            ROWS,
            ROWS,
        ),
    ),
    "noisy_ridge": lambda: (
        lambda g, m, d, n: noisy_ridge(NoisyStatistics(g, m, d, n), l2=0.1),
        (LIKE((4, 4)), LIKE((4, 2)), LIKE(()), LIKE(())),
    ),
    "reconstruct_removed": lambda: (
        functools.partial(reconstruct_removed, rank=2),
        (LIKE((4, 4)), LIKE((4, 4)), LIKE((4, 2)), LIKE((4, 2))),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_products_of_what_is_no_program_state_theirs(name):
    function, shapes = OTHERS[name]()
    assert list(unstated(jax.make_jaxpr(function)(*shapes).jaxpr)) == []
