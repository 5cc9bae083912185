"""The problems of curvlinops' tests of K-FAC and EK-FAC.

"type 2" is ``labels="exact"``, "mc" is "sampled" and "empirical" is "true".
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from kronecker_cases import LINEAR, ONE, SHARED, case_of, linear
from posed import Table, refused
from small_nets import (
    Case,
    diagonal_blocks,
    exact,
    flat,
    labels,
    layers,
    logistic_loss,
    mean_squared_error,
    numbers,
    perceptron,
    soft,
)
from tiny import quick_jit as quick

from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_blocks import (
    Factors,
    Full,
    eigendecompose,
    mean_eigenvalue,
)
from unlearn_jax.curvature.kronecker_inverse import (
    kronecker_inverse,
    kronecker_operator,
)
from unlearn_jax.curvature.operator import dense
from unlearn_jax.train.loss import cross_entropy, squared_error

TABLE = Table(
    "curvlinops",
    {
        "test/test_kfac.py::test_KFAC_inverse_damped_matmat": "damping each factor by "
        "the same number is not offered: exact, or split by the factors' sizes",
        "test/computers/test_layer_io.py::test_enable_param_grads_preserves_requires_grad"
        "": "arrays carry no such mark in JAX",
    },
)
poses = TABLE.poses


def close(actual, expected, rtol=1e-8, atol=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@functools.cache
def fitted(name):
    """Both approximations under all labels, and the exact blocks."""
    case = (ONE | LINEAR | SHARED)[name]()
    key, shared = jax.random.key(0), name.split(",")[0]
    options = {"shared": shared if shared in ("expand", "reduce") else "expand"}
    kinds = {"exact": 1, "true": 1} if name in ONE else {"exact": 1}

    def program(params, data):
        given = case.objective, params, data
        found = {}
        for kind, samples in kinds.items():
            for build in (kfac, ekfac):
                state = build(key, *given, labels=kind, samples=samples, **options)
                found[build.__name__, kind] = dense(kronecker_operator(state, params))
        whole = exact(Case(*given))
        return found, whole

    found, whole = quick(program)(case.params, case.data)
    return (
        found,
        diagonal_blocks(whole.gauss_newton, case.params),
        diagonal_blocks(whole.empirical, case.params),
    )


def exact_blocks(name, build, kind):
    found, gauss_newton, empirical = fitted(name)
    close(found[build, kind], gauss_newton if kind == "exact" else empirical)


SLOW = ("scalar", "expand, dense", "reduce, convolution", "logits")
"""What other cases of their kind cover in the everyday run."""
FILES = {
    "kfac": "test/test_kfac.py::test_kfac",
    "ekfac": "test/test_ekfac.py::test_ekfac",
}
for _build, _file in FILES.items():
    for _name in LINEAR:
        _source = f"{_file}_type2"
        TABLE.add(
            f"{_build}: deep linear net, {_name}",
            *(_source, exact_blocks, _name, _build, "exact"),
            slow=_name in SLOW,
        )
    for _name in SHARED:
        _source = f"{_file}_type2_weight_sharing"
        TABLE.add(
            f"{_build}: {_name}",
            *(_source, exact_blocks, _name, _build, "exact"),
            slow=_name in SLOW,
        )
    for _name in ONE:
        for _kind, _word in (("exact", ""), ("true", "_ef")):
            _source = f"{_file}{_word}_one_datum"
            TABLE.add(
                f"{_build}: one datum, {_name}, {_kind} labels",
                *(_source, exact_blocks, _name, _build, _kind),
                slow=_name in SLOW,
            )


def drawn(build):
    case = ONE["softmax"]()
    samples = 4000

    def program(params, data):
        state = build(
            *(jax.random.key(1), case.objective, params, data),
            labels="sampled",
            samples=samples,
        )
        return dense(kronecker_operator(state, params))

    got, (_, expected, _) = quick(program)(case.params, case.data), fitted("softmax")
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error < 6 / np.sqrt(samples)


TABLE.add("kfac: drawn labels", "test/test_kfac.py::test_kfac_mc", drawn, kfac)
TABLE.add(
    "ekfac: drawn labels",
    *("test/test_ekfac.py::test_ekfac_mc", drawn, ekfac),
    slow=True,
)


@poses(
    "drawn labels of an unknown distribution",
    "test/test_kfac.py::test_kfac_mc_one_datum",
)
def _():
    with refused("labels"):
        kfac(jax.random.key(0), *ONE["logits"](), labels="sampled")


def tied(params, inputs):
    """One matrix, used twice."""
    kernel = params["kernel"]
    return jnp.tanh(inputs @ kernel) @ kernel


@functools.cache
def tied_case():
    return case_of(
        *(tied, squared_error, {"kernel": numbers(13, 3, 3)}),
        *(numbers(14, 5, 3), numbers(15, 5, 3)),
    )


def weight_tying(build):
    case = tied_case()

    def program(params, data):
        state = build(None, case.objective, params, data, labels="exact")
        return dense(kronecker_operator(state, params)), exact(
            Case(case.objective, params, data)
        ).gauss_newton

    close(*quick(program)(case.params, case.data))


TABLE.add(
    "kfac: a matrix used twice",
    "test/test_kfac.py::test_kfac_type2_weight_tying",
    *(weight_tying, kfac),
)
TABLE.add(
    "ekfac: a matrix used twice",
    "test/test_ekfac.py::test_ekfac_type2_weight_tying",
    *(weight_tying, ekfac),
)


@functools.cache
def relu_net():
    case = case_of(
        *(perceptron, cross_entropy, layers(16, 4, 3, 3)),
        *(numbers(17, 6, 4), labels(18, 6, classes=3)),
    )
    vector = jax.tree.map(
        lambda x: jnp.cos(jnp.arange(x.size * 1.0)).reshape(x.shape), case.params
    )

    def program(params, data, vector):
        plain, corrected = (
            build(None, case.objective, params, data, labels="exact")
            for build in (kfac, ekfac)
        )
        damping = 0.05
        return {
            "states": (plain, corrected),
            "kfac": dense(kronecker_operator(plain, params)),
            "ekfac": dense(kronecker_operator(corrected, params)),
            "batches": dense(
                kronecker_operator(
                    kfac(
                        None, case.objective, params, data, labels="exact", batch_size=2
                    ),
                    params,
                )
            ),
            "kfac inverse": flat(kronecker_inverse(plain, damping=damping)(vector)),
            "ekfac inverse": flat(
                kronecker_inverse(corrected, damping=damping)(vector)
            ),
            "split": kronecker_inverse(plain, damping=damping, split="factored")(
                vector
            ),
            "exact": exact(Case(case.objective, params, data)).gauss_newton,
        }

    return case, vector, quick(program)(case.params, case.data, vector)


def property_of(build, name):
    """Trace, norm and determinants from the blocks' eigenvalues."""
    _, _, found = relu_net()
    state = found["states"][build == "ekfac"]
    matrix = found[build] + (0.1 * np.eye(len(found[build])) if "det" in name else 0)
    values = np.concatenate(
        [getattr(b, "values", b).reshape(-1) for b in eigendecompose(state).blocks]
    )
    if name == "trace":
        close(mean_eigenvalue(state) * len(matrix), np.trace(matrix))
    elif name == "frobenius_norm":
        close(np.sqrt(np.sum(values**2)), np.linalg.norm(matrix))
    elif name == "det":
        close(np.prod(values + 0.1), np.linalg.det(matrix))
    else:
        close(np.sum(np.log(values + 0.1)), np.linalg.slogdet(matrix)[1])


for _build in ("kfac", "ekfac"):
    for _name in ("trace", "frobenius_norm", "det", "logdet"):
        _source = f"test/test_{_build}.py::test_{_name}"
        TABLE.add(f"{_build}: {_name}", _source, property_of, _build, _name)


def exactly_damped(build):
    _, vector, found = relu_net()
    matrix = found[build] + 0.05 * np.eye(len(found[build]))
    close(found[f"{build} inverse"], np.linalg.solve(matrix, flat(vector)))


TABLE.add(
    "kfac: inverse, damped exactly",
    "test/test_kfac.py::test_KFAC_inverse_exactly_damped_matmat",
    *(exactly_damped, "kfac"),
)
TABLE.add(
    "ekfac: inverse, damped exactly",
    "test/test_ekfac.py::test_EKFAC_inverse_exactly_damped_matmat",
    *(exactly_damped, "ekfac"),
)


@poses(
    "kfac: inverse, damping split by the factors' sizes",
    "test/test_kfac.py::test_KFAC_inverse_heuristically_damped_matmat",
)
def _():
    case, vector, found = relu_net()
    plain, root = found["states"][0], np.sqrt(0.05)
    order = {"bias": 0, "kernel": 1}
    for place, layer in enumerate(case.params):
        block = plain.blocks[2 * place + order["kernel"]]
        assert isinstance(block, Factors)
        a, g = np.asarray(block.inputs[0]), np.asarray(block.slopes[0])
        pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
        left = np.linalg.inv(a + pi * root * np.eye(len(a)))
        right = np.linalg.inv(g + root / pi * np.eye(len(g)))
        expected = left @ np.asarray(vector[layer]["kernel"]) @ right
        close(found["split"][layer]["kernel"], expected)


@poses(
    "ekfac: nearer to the exact blocks than kfac",
    "test/test_ekfac.py::test_ekfac_closer_to_exact_than_kfac",
)
def _():
    case, _, found = relu_net()
    blocks = diagonal_blocks(found["exact"], case.params)
    plain, corrected = (
        np.linalg.norm(found[name] - blocks) for name in ("kfac", "ekfac")
    )
    assert corrected < plain


@poses(
    "kfac: the size of the batches does not matter",
    "test/test_kfac.py::test_kfac_make_fx_flatten_different_batch_sizes",
)
def _():
    _, _, found = relu_net()
    close(found["batches"], found["kfac"])


@poses(
    "kfac: a bias has a block of its own, exactly",
    "test/test_kfac.py::test_kfac_unsupported_layer_params",
)
def _():
    case, _, found = relu_net()
    place = [isinstance(b, Full) for b in found["states"][0].blocks]
    assert place == [True, False, True, False]
    blocks = diagonal_blocks(found["exact"], case.params)
    close(found["kfac"][:3, :3], blocks[:3, :3])


@poses(
    "kfac: a state goes through a file", "test/test_kfac.py::test_kfac_torch_save_load"
)
def _():
    case, _, found = relu_net()
    leaves, structure = jax.tree.flatten(found["states"][0])
    copied = jax.tree.unflatten(structure, [np.array(leaf) for leaf in leaves])
    close(
        quick(lambda s: dense(kronecker_operator(s, case.params)))(copied),
        found["kfac"],
    )


@poses("kfac: a word that is unknown", "test/test_kfac.py::test_string_in_enum")
def _():
    case = ONE["softmax"]()
    with refused("'forward-only'", "sampled"):
        kfac(None, *case, labels="forward-only")
    with refused("'both'", "'expand' or 'reduce'"):
        kfac(None, *case, shared="both")


def positions(loss):
    """Outputs with two axes of positions: a net over an image of vectors."""
    predict = linear
    targets = soft(20, 2, 2, 2, 2) if loss is logistic_loss else numbers(20, 2, 2, 2, 2)
    case = case_of(predict, loss, layers(19, 3, 2), numbers(21, 2, 2, 2, 3), targets)

    def program(params, data):
        given = case.objective, params, data
        state = ekfac(None, *given, labels="true")
        return dense(kronecker_operator(state, params)), exact(Case(*given)).empirical

    got, empirical = quick(program)(case.params, case.data)
    blocks = diagonal_blocks(empirical, case.params)
    close(np.trace(got), np.trace(blocks))


MANY = "test/test_ekfac.py::test_multi_dim_output"
TABLE.add(
    "ekfac: images of vectors, squares", MANY, positions, mean_squared_error, slow=True
)
TABLE.add("ekfac: images of vectors, logits", MANY, positions, logistic_loss)


@TABLE.cases()
def test_curvlinops_kronecker(problem):
    problem.check()


def test_sources():
    TABLE.check_sources()
