"""The problems of TRAK's tests: scores of one or more models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from posed import Table
from tiny import quick_jit as quick

from unlearn_jax.attribution.attribution import Evidence
from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.attribution.trak import trak
from unlearn_jax.models.model import Model
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.types import Batch, Variables

TABLE = Table(
    "trak",
    {
        "tests/test_cifar10_accuracy.py::test_cifar_acc": "hours of training on data "
        "that a test has not",
        "tests/test_integration_clip.py::test_mscoco": "as above",
        "tests/test_integration_qnli.py::test_qnli": "as above",
        "tests/memory_profiling.py::test_cifar_acc": "as above",
        "tests/test_class.py::test_forgot_loading_ckpt": "there is no state before "
        "``prepare``, which takes the models",
        "tests/test_parallel.py::test_preemption": "features are not written to disk; "
        "``prepare`` is one program",
    },
)
poses = TABLE.poses

COUNT, QUERIES, DAMPING = 10, 4, 0.5


@functools.cache
def posed():
    """Three models of one net, training examples and queries."""
    learner = tiny.learner("mlp")
    models = jax.vmap(learner.model.init)(jax.random.split(jax.random.key(0), 3))
    data = jax.tree.map(jnp.asarray, tiny.examples(count=COUNT + QUERIES))
    train = jax.tree.map(lambda leaf: leaf[:COUNT], data)
    queries = jax.tree.map(lambda leaf: leaf[COUNT:], data)
    return learner, models, train, queries


def some(models, *places):
    return jax.tree.map(lambda leaf: leaf[np.asarray(places)], models)


@functools.cache
def scorer(net="mlp", dtype=jnp.float64, output=margin, **options):
    """(models, train, queries) -> scores, as one program for each shape."""
    return score_with(tiny.learner(net, dtype), output, **options)


def score_with(learner, output, **options):
    attribution = trak(learner, damping=DAMPING, **options)

    @quick
    def both(models, train, queries):
        state = attribution.prepare(jax.random.key(7), Evidence(models), train)
        return attribution.effects(state, train, queries, output)

    return both


def scores(models, train, queries, **options):
    return scorer(**options)(models, train, queries)


@functools.cache
def gradients(place):
    """Gradients of the margins of one model, formed by JAX, and the margins."""
    learner, models, train, queries = posed()
    at = jax.tree.map(lambda leaf: leaf[place], models)

    @quick
    def slopes(params, inputs, targets):
        start, unflatten = jax.flatten_util.ravel_pytree(params)

        def values(theta):
            outputs = learner.model.apply(Variables(unflatten(theta), {}), inputs)
            return margin(outputs, targets)

        return jax.jacrev(values)(start), values(start)

    data = Batch(*(jnp.concatenate(pair) for pair in zip(train, queries, strict=True)))
    return slopes(at.params, data.inputs, data.targets)


@functools.cache
def published(*places):
    """The published formula, without projection."""
    kernels, shares = [], []
    for place in places:
        rows, margins = gradients(place)
        rows, asked = rows[:COUNT], rows[COUNT:]
        ridge = DAMPING * jnp.sum(rows**2) / min(rows.shape)
        # Bᵀ(BBᵀ + λ)⁻¹ is (BᵀB + λ)⁻¹Bᵀ.
        gram = rows @ rows.T + ridge * jnp.eye(COUNT)
        kernels.append(asked @ jnp.linalg.solve(gram, rows).T)
        shares.append(jax.nn.sigmoid(-margins[:COUNT]))
    return sum(kernels) / len(places) * (sum(shares) / len(places))[None]


def exactly(*places, **options):
    _, models, train, queries = posed()
    got = scores(some(models, *places), train, queries, **options)
    np.testing.assert_allclose(got, published(*places), rtol=1e-7, atol=1e-10)


CLASS = "tests/test_class.py::test_"
NOTHING = {"projection": "none"}
TABLE.add(
    "score of one model, no projection",
    f"{CLASS}class_featurize_noop",
    functools.partial(exactly, 0, **NOTHING),
)
TABLE.add(
    "score of two models",
    f"{CLASS}load_ckpt_repeat",
    functools.partial(exactly, 0, 1, **NOTHING),
)
TABLE.add(
    "score of some of the models",
    f"{CLASS}score_finalize_some_model_ids",
    functools.partial(exactly, 2, **NOTHING),
)
TABLE.add(
    "small batches of examples",
    f"{CLASS}finalize_features_multiple_ftr",
    functools.partial(exactly, 0, 1, batch_size=3, **NOTHING),
)
TABLE.add(
    "small batches of queries",
    "tests/test_parallel.py::test_score_in_shards",
    functools.partial(exactly, 0, query_batch_size=3, **NOTHING),
)
TABLE.add(
    "from pairs of examples, gradients never formed",
    f"{CLASS}iterative_gradient_computer",
    functools.partial(exactly, 0, projection="gram"),
)


@poses("projected scores come near", f"{CLASS}score_finalize")
def _():
    _, models, train, queries = posed()
    wide = scores(some(models, 0), train, queries, projection="dense", width=1024)
    together = np.corrcoef(np.ravel(wide), np.ravel(published(0)))[0, 1]
    assert together > 0.95


@poses("any output of the queries", f"{CLASS}custom_model_output")
def _():
    _, models, train, queries = posed()

    def doubled(outputs, targets):
        return 2 * margin(outputs, targets)

    got = scores(some(models, 0), train, queries, output=doubled, **NOTHING)
    np.testing.assert_allclose(got, 2 * published(0), rtol=1e-7, atol=1e-10)


@poses("queries one by one", "tests/test_parallel.py::test_score_multiple")
def _():
    _, models, train, queries = posed()
    run, first = scorer(**NOTHING), some(models, 0)
    alone = [Batch(*(leaf[i : i + 1] for leaf in queries)) for i in range(QUERIES)]
    got = np.concatenate([run(first, train, query) for query in alone])
    np.testing.assert_allclose(got, published(0), rtol=1e-7, atol=1e-10)


@poses("single precision", f"{CLASS}score_finalize_full_precision")
def _():
    _, models, train, queries = posed()

    def narrow(value):
        return jax.tree.map(
            lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, value
        )

    given = narrow(some(models, 0)), narrow(train), narrow(queries)
    got = scores(*given, dtype=jnp.float32, **NOTHING)
    assert got.dtype == jnp.float32
    size = float(np.abs(published(0)).max())
    np.testing.assert_allclose(got, published(0), atol=2e-5 * size)


@poses("the last layer alone", f"{CLASS}grad_wrt_last_layer")
def _():
    learner, models, train, queries = posed()
    whole = jax.tree.map(lambda leaf: leaf[0], models)
    head = Model(
        lambda key: Variables(whole.params["head"], {}),
        lambda at, inputs: learner.model.apply(
            Variables(whole.params | {"head": at.params}, {}), inputs
        ),
        learner.model.apply_train,
        learner.model.features,
    )
    seen = learner.model.features(whole, train.inputs)
    rows = np.concatenate([seen, np.ones((COUNT, 1))], axis=1)
    asked = learner.model.features(whole, queries.inputs)
    asked = np.concatenate([asked, np.ones((QUERIES, 1))], axis=1)
    stacked = jax.tree.map(lambda leaf: leaf[None], Variables(whole.params["head"], {}))
    run = score_with(learner._replace(model=head), margin, **NOTHING)
    got = run(stacked, train, queries)

    def factors(batch):
        outputs = learner.model.apply(whole, batch.inputs)
        return jax.grad(lambda out: jnp.sum(margin(out, batch.targets)))(
            outputs
        ), outputs

    (slope, outputs), (other, _) = factors(train), factors(queries)
    gram = (rows @ rows.T) * (slope @ slope.T)
    cross = (asked @ rows.T) * (other @ slope.T)
    size = sum(leaf.size for leaf in jax.tree.leaves(whole.params["head"]))
    ridge = DAMPING * np.trace(gram) / min(COUNT, size) * np.eye(COUNT)
    share = 1 - np.exp(-np.asarray(cross_entropy(outputs, train.targets)))
    expected = cross @ np.linalg.inv(gram + ridge) * share[None]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


@poses(
    "features twice, bit for bit",
    "tests/test_parallel.py::test_featurize_and_score_in_parallel",
)
def _():
    _, models, train, queries = posed()
    one, two = (
        scores(some(models, 0), train, queries, projection="dense", width=32)
        for _ in "ab"
    )
    np.testing.assert_array_equal(one, two)


@poses("an example that is not there", f"{CLASS}max_batch_size")
def _():
    _, models, train, queries = posed()
    more = Batch(*(jnp.concatenate([leaf, leaf[:2]]) for leaf in train))
    more = more._replace(
        inputs=more.inputs.at[COUNT:].set(jnp.nan),
        weights=more.weights.at[COUNT:].set(0),
    )
    got = scores(some(models, 0), more, queries, batch_size=5, **NOTHING)
    np.testing.assert_allclose(got[:, :COUNT], published(0), rtol=1e-7, atol=1e-10)
    assert np.all(got[:, COUNT:] == 0)


@TABLE.cases()
def test_trak(problem):
    problem.check()


def test_sources():
    TABLE.check_sources()
