"""Products say their precision, but for a model's own; sums are carried in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import workloads
from unlearn_jax import tree
from unlearn_jax.attribution.gaussian_process import gp_fit, gp_predict
from unlearn_jax.attribution.kernels import rbf
from unlearn_jax.curvature import contractions
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker_inverse import kronecker_inverse
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.solvers.ridge_inverse import inverse_remove, inverse_start
from unlearn_jax.solvers.woodbury import woodbury_apply, woodfisher
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch
from unlearn_kernels.fisher_diagonal import IMPLEMENTATIONS, square_sum
from unlearn_kernels.precision import summed, summing

LIKE = jax.ShapeDtypeStruct
FULL = jax.lax.Precision.HIGHEST


def inner_programs(equation):
    for value in jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    ):
        value = getattr(value, "jaxpr", value)
        if hasattr(value, "eqns"):
            yield value


def products(program):
    """Precision of every matrix product, however deep it lies."""
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            told = equation.params["precision"]
            yield told[0] if isinstance(told, tuple) else told
        for inner in inner_programs(equation):
            yield from products(inner)


def told(function, *arguments):
    """How many products take each precision."""
    found = list(products(jax.make_jaxpr(function)(*arguments).jaxpr))
    return {kind: found.count(kind) for kind in set(found)}


@pytest.fixture(scope="module")
def net():
    return workloads.language_model(3)


SUMS = {
    "square_sum": lambda t, g, p, b: contractions.square_sum(t, g, b.weights),
    "squared_norms": lambda t, g, p, b: contractions.squared_norms(g),
    "gram": lambda t, g, p, b: contractions.gram(g, g),
    "along": lambda t, g, p, b: contractions.along(t, g, p),
    "weighted_sum": lambda t, g, p, b: contractions.weighted_sum(t, g, b.weights),
}


def test_sums_take_the_setting_and_the_model_its_own(net):
    def program(p, b):
        parts = loss_gradients(net.objective, p, b)
        return [take(*parts, p, b) for take in SUMS.values()]

    def model(p, b):
        return loss_gradients(net.objective, p, b)[1]

    own = told(model, net.params, net.batch)
    assert set(own) == {None}
    for setting, kind in {"full": FULL, "fast": jax.lax.Precision.DEFAULT}.items():
        with summing(setting):
            found = told(program, net.params, net.batch)
        assert set(found) == {None, kind}
        assert found[None] == own[None]
        assert found[kind] >= len(SUMS) * len(jax.tree.leaves(net.params)) / 2


def solved(state, v):
    return kronecker_inverse(state, damping=0.1)(v)


def ridge(x, y, w):
    return inverse_remove(inverse_start(4, 2, l2=1.0), Batch(x, y, w))


def process(x, y):
    def kernel(a, b):
        return rbf(a, b, length=1.0)

    return gp_predict(kernel, gp_fit(kernel, x, y, noise=0.1), x)


def stack(v):
    return jax.tree.map(lambda x: jnp.stack([x, 2 * x]), v)


VECTOR = {"a": LIKE((4, 3), jnp.float64), "b": LIKE((5,), jnp.float64)}
ROWS = (LIKE((3, 4), jnp.float64), LIKE((3, 2), jnp.float64))
EXACT = {
    "inner product": (lambda v: tree.dot(v, v), (VECTOR,)),
    "woodbury": (
        lambda v: woodbury_apply(woodfisher(stack(v), damping=0.1), v),
        (VECTOR,),
    ),
    "ridge": (ridge, (*ROWS, LIKE((3,), jnp.float64))),
    "Gaussian process": (process, ROWS),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_multiplied_by_a_condition_number_is_always_full(name):
    function, arguments = EXACT[name]
    with summing("fast"):
        assert set(told(function, *arguments)) == {FULL}


def test_inverses_of_kronecker_factors_are_always_full(net):
    def basis(p, b):
        return ekfac(None, net.objective, p, b)

    state = jax.eval_shape(basis, net.params, net.batch)
    with summing("fast"):
        assert set(told(solved, state, net.params)) == {FULL}


@pytest.mark.parametrize("name", [n for n in IMPLEMENTATIONS if n != "triton"])
def test_half_precision_is_summed_in_float32(name):
    """In bfloat16, 256 + 1 is 256."""
    ones = jnp.ones((600, 1, 1, 2), jnp.bfloat16)
    found = square_sum(ones, ones, ones[:, 0, 0, 0], implementation=name)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(float), 600.0)


def test_a_sum_of_gradients_in_half_precision_too():
    ones = jnp.ones((600, 2), jnp.bfloat16)
    batch = Batch(ones, jnp.zeros(600, jnp.int32), jnp.ones(600, jnp.bfloat16))
    sum_of = Objective(lambda p, x: x @ p["w"], lambda out, _: jnp.sum(out, axis=1))

    @jax.jit
    def total(params, batch):
        taped, found = loss_gradients(sum_of, params, batch)
        return contractions.weighted_sum(taped, found, batch.weights)["w"]

    found = total({"w": jnp.ones((2, 3), jnp.bfloat16)}, batch)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(float), 600.0)


def test_the_switch_is_scoped_and_known_to_caches():
    multiply = jax.jit(lambda x: jnp.matmul(x, x, precision=summed()))
    kinds = []
    for setting in ("full", "fast", "high", "full"):
        with summing(setting):
            kinds.append(summed())
            traced = multiply.trace(LIKE((2, 2), jnp.float32)).jaxpr
            assert set(products(traced.jaxpr)) == {summed()}
    assert [kind.name for kind in kinds] == ["HIGHEST", "DEFAULT", "HIGH", "HIGHEST"]
    assert summed() == FULL
    with pytest.raises(ValueError, match="'quick'; expected one of full, high, fast"):
        summing("quick")
