"""What every entry of METHODS keeps, whatever it does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_words
from asserts import assert_trees_close
from methods.strong import SETTINGS

from unlearn_jax import tree
from unlearn_jax.attribution.trace import trace_like
from unlearn_jax.data.batch import pad
from unlearn_jax.methods import METHODS, check_task, make_request
from unlearn_jax.train.loss import squared_error

NOT_RANDOM = {
    "identity",
    "ssd",
    "ssd_batch",
    "lfssd",
    "assd",
    "potion",
    "influence_removal",
    "newton_removal",
    "source_removal",
    "natural_ascent",
}
PREPARES_AT_RANDOM = {"prune_rewind", "duck", "scar", "slug", "dmm"}
# With nothing to forget these leave the model as it is, bit for bit.
IDLE_ON_NOTHING = NOT_RANDOM | {
    "retain_newton",
    "influence_unlearning",
    "gradient_ascent",
    "boundary_shrink",
    "boundary_expanding",
    "lipschitz",
    "prioritised_finetune",
    "ewc",
    "l2_to_init",
    "graddiff",
    "refusal",
    "dpo",
    "llmu",
    "npo",
    "simnpo",
    "npo_smooth",
    "wagle",
    "undial",
    "ce_u",
    "wga",
    "satimp",
    "flat",
    "sophia",
    "rmu",
    "scar",
    "laf",
    "slug",
    "dmm",
    "oracle_matching",
}
# One stage has every layer of the two, and of the plain net, whose programs, four for
# each method, the slow suite compiles.
NETS = {"mlp": [pytest.mark.slow], "norm": [pytest.mark.slow], "short": []}
BOTH = [
    pytest.param((name, net), marks=marks)
    for name in METHODS
    for net, marks in NETS.items()
]


def method_of(name, learner):
    return METHODS[name].factory(learner, **SETTINGS[name])


def same(a, b):
    """Whether two trees agree bit for bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


class Case:
    """One method on one net: compiled once, its traces counted, its runs at hand."""

    def __init__(self, name, net, originals, traces, train, request):
        self.name, self.entry = name, METHODS[name]
        learner, train, request = tiny.suited(self.entry, net, train, request)
        self.train = train
        self.method = method_of(name, learner)
        self.originals = originals(net)
        self.traces = (traces(net),) if self.method.reads_trace else ()
        self.keys = jax.random.split(jax.random.key(1), 2)
        self.request = request
        self.traced = 0
        self.program = tiny.quick_jit(self.method.prepare)
        self.forget = tiny.quick_jit(self._counted)
        self.original = tree.member(self.originals, 0)
        self.state = self.prepare(self.keys[0])
        self.unlearned, self.next_state = self.run(request)

    def prepare(self, key, i=0):
        """The state of original i."""
        trace = tree.member(self.traces, i)
        return self.program(key, tree.member(self.originals, i), self.train, *trace)

    def _counted(self, *arguments):
        self.traced += 1
        return self.method.forget(*arguments)

    def run(self, request):
        return self.forget(self.keys[0], self.state, self.original, request)


@pytest.fixture(scope="module", params=BOTH, ids="-".join)
def case(request, originals, traces, train, request_a):
    return Case(*request.param, originals, traces, train, request_a)


def test_settings_name_every_method():
    assert list(SETTINGS) == list(METHODS)


def test_same_key_same_result_bit_for_bit(case):
    again, state = case.run(case.request)
    assert same(again, case.unlearned)
    assert same(state, case.next_state)


def test_key_matters_only_to_random_methods(case):
    other = case.keys[1]
    state = case.prepare(other)
    moved, _ = case.forget(other, state, case.original, case.request)
    assert same(state, case.state) == (case.name not in PREPARES_AT_RANDOM)
    assert same(moved, case.unlearned) == (case.name in NOT_RANDOM)


def test_another_request_or_model_compiles_nothing(case):
    another = make_request(case.train, np.arange(40, 47))
    assert another.forget.weights.shape == case.request.forget.weights.shape
    other = tree.member(case.originals, 1)
    case.forget(case.keys[1], case.state, other, another)
    assert case.traced == 1


def test_vmap_over_models_on_a_wider_request_equals_one_by_one(case):
    # One program for two laws, since compiling is what costs here: models together
    # are models apart, and padding up to a larger bucket changes nothing.
    forget = case.request.forget
    wider = case.request._replace(forget=pad(forget, 2 * len(forget.weights)))
    axes = (0, 0, None, *(0 for _ in case.traces))
    prepare = tiny.quick_jit(jax.vmap(case.method.prepare, axes))
    states = prepare(case.keys, case.originals, case.train, *case.traces)
    forget = tiny.quick_jit(jax.vmap(case.method.forget, (0, 0, 0, None)))
    together = forget(case.keys, states, case.originals, wider)
    for i in range(2):
        model = tree.member(case.originals, i)
        state = case.prepare(case.keys[i], i)
        alone = case.forget(case.keys[i], state, model, case.request)
        assert_trees_close(tree.member(together, i), alone, rtol=1e-8, atol=1e-10)


def test_structure_shapes_and_dtypes_are_kept(case):
    for after, before in (
        (case.unlearned, case.original),
        (case.next_state, case.state),
    ):
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)
        assert jax.tree.map(jnp.result_type, after) == jax.tree.map(
            jnp.result_type, before
        )
    assert tree.all_finite(case.unlearned)


def test_inputs_are_left_alone(case):
    handed = (case.state, case.original, case.request, case.train)
    before = jax.tree.map(np.array, handed)
    case.prepare(case.keys[0])
    case.run(case.request)
    assert same(handed, before)


def test_everyone_but_identity_moves_parameters(case):
    still = same(case.unlearned.params, case.original.params)
    assert still == (case.name == "identity")


def test_absent_examples_are_never_seen(case):
    def poisoned(batch):
        inputs = np.where(np.asarray(batch.weights)[:, None] > 0, batch.inputs, np.nan)
        return batch._replace(inputs=inputs)

    request = case.request._replace(
        forget=poisoned(case.request.forget), retain=poisoned(case.request.retain)
    )
    assert np.isnan(request.forget.inputs).any()
    assert np.isnan(request.retain.inputs).any()
    assert same(case.run(request), (case.unlearned, case.next_state))


@pytest.mark.parametrize("part", ["forget", "retain"])
def test_the_table_says_what_is_read(case, part):
    data = getattr(case.request, part)
    changed = case.request._replace(**{part: data._replace(inputs=1.5 * data.inputs)})
    moved, _ = case.run(changed)
    assert same(moved, case.unlearned) == (case.entry.reads not in (part, "both"))


def test_the_table_says_whether_work_is_prepared(case):
    assert bool(jax.tree.leaves(case.state)) == case.entry.prepares
    assert case.method.reads_trace == case.entry.trace


def test_nothing_to_forget_changes_nothing_where_it_should(case):
    nothing = case.request.forget._replace(
        weights=np.zeros_like(case.request.forget.weights)
    )
    moved, _ = case.run(case.request._replace(forget=nothing))
    assert tree.all_finite(moved)
    assert same(moved, case.original) == (case.name in IDLE_ON_NOTHING)


@functools.cache
def problem(kind):
    """Learner, data, and the shapes of an original and of the trace of its training."""
    learner, data = tiny.learner("short", jnp.float32), tiny.examples(np.float32)
    if kind == "regression":
        learner = tiny.learner("mlp", jnp.float32)
    if kind == "tokens":
        learner, data = tiny_words.learner(jnp.float32), tiny_words.examples()
    if kind.startswith("foreign"):
        learner = tiny.learner("mlp")._replace(model=tiny.raw_convolution())
        data = tiny.examples()
    if kind.endswith("regression"):
        learner, data = learner._replace(loss=squared_error), tiny.numeric(data)
    return learner, data, trace_like(learner, data, points=2, segments=1)


def keeps_its_kind(name, kind, *, request_inside):
    # Tracing is enough: shapes and dtypes are known before anything is compiled.
    key = jax.random.key(0)
    if kind != "regression" and "classification" not in METHODS[name].tasks:
        kind = f"{kind} regression"
    learner, data, (variables, trace) = problem(kind)
    method = method_of(name, learner)
    traces = (trace,) if method.reads_trace else ()
    state = jax.eval_shape(method.prepare, key, variables, data, *traces)
    request = make_request(data, [0, 5, 6])
    given = (key, state, variables)
    if request_inside:
        kept = jax.eval_shape(lambda *a: method.forget(*a, request), *given)
    else:
        kept = jax.eval_shape(method.forget, *given, request)
    assert kept == (variables, state)


@pytest.mark.parametrize("name", METHODS)
def test_float32_stays_float32(name):
    _, _, (variables, _) = problem("float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    keeps_its_kind(name, "float32", request_inside=False)


@pytest.mark.parametrize(
    "name", [name for name, entry in METHODS.items() if "regression" in entry.tasks]
)
def test_regression_is_served_where_it_is_promised(name):
    keeps_its_kind(name, "regression", request_inside=False)


@pytest.mark.parametrize(
    "name", [name for name, entry in METHODS.items() if "tokens" in entry.tasks]
)
def test_sequences_are_served_where_it_is_promised(name):
    keeps_its_kind(name, "tokens", request_inside=False)


@pytest.mark.parametrize("name", METHODS)
def test_foreign_convolutions_may_be_traced_with_data_outside(name):
    # Loops around XLA's own convolution run on the host where they can; under vmap
    # over models they cannot, even though the data are plain arrays.
    keeps_its_kind(name, "foreign", request_inside=True)


def test_check_task_accepts_what_the_table_promises():
    for name, entry in METHODS.items():
        for task in entry.tasks:
            check_task(name, task)


def test_check_task_refuses_unknown_names():
    with pytest.raises(ValueError, match=r"no method 'sdd'; choose from identity, ret"):
        check_task("sdd", "classification")


def test_check_task_names_the_methods_that_could():
    sentence = "scrub unlearns classification, this data set is a regression; .*: iden"
    with pytest.raises(ValueError, match=sentence) as refusal:
        check_task("scrub", "regression")
    able = str(refusal.value).split("methods for it: ")[1].split(", ")
    assert able == [n for n, entry in METHODS.items() if "regression" in entry.tasks]
