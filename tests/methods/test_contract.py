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
    "refresh_learning",
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
    "opt_out",
    "mudman",
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
# One stage has every layer of the two, and of the plain net, whose programs, two for
# each method, the slow suite compiles.
NETS = {"mlp": [pytest.mark.slow], "norm": [pytest.mark.slow], "short": []}
# These run on a frame that another method runs on every day: compiled in the slow
# suite, traced every day, as all are.
FRAMED = {
    "npo": "graddiff refusal dpo llmu simnpo npo_smooth opt_out ce_u wga satimp flat",
    "ssd": "ssd_batch lfssd",
    "salun": "random_labels salun_soft",
    "finetune": "finetune_last retrain_last",
    "prune_rewind": "prune_finetune",
    "boundary_shrink": "boundary_expanding",
    "stochastic_teacher": "bad_teacher",
    "dmm": "oracle_matching",
}
RARE = {name for names in FRAMED.values() for name in names.split()}
BOTH = [
    pytest.param((name, net), marks=[*marks, *([pytest.mark.slow] * (name in RARE))])
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
    """One method on one net: two models together, compiled once, its traces counted."""

    def __init__(self, name, net, originals, traces, train, request):
        self.name, self.entry = name, METHODS[name]
        learner, train, request = tiny.suited(self.entry, net, train, request)
        self.train = train
        self.method = method_of(name, learner)
        self.originals = originals(net)
        self.traces = (traces(net),) if self.method.reads_trace else ()
        self.keys = jax.random.split(jax.random.key(1), 4)
        self.request = request
        self.traced = 0
        axes = (0, 0, None, *(0 for _ in self.traces))
        self.program = tiny.quick_jit(jax.vmap(self.method.prepare, axes))
        together = jax.vmap(self._counted, (0, 0, 0, None))
        self.forget = tiny.quick_jit(together)
        self.state = self.prepare(self.keys[:2])
        self.unlearned, self.next_state = self.run(request)

    def prepare(self, keys):
        """The states of both originals."""
        return self.program(keys, self.originals, self.train, *self.traces)

    def _counted(self, *arguments):
        self.traced += 1
        return self.method.forget(*arguments)

    def run(self, request):
        return self.forget(self.keys[:2], self.state, self.originals, request)

    def alone(self, prepare, forget, i):
        """What original i becomes in programs of its own."""
        model, *trace = (tree.member(x, i) for x in (self.originals, *self.traces))
        state = prepare(self.keys[i], model, self.train, *trace)
        return forget(self.keys[i], state, model, self.request)


@pytest.fixture(scope="module", params=BOTH, ids="-".join)
def case(request, originals, traces, train, request_a):
    return Case(*request.param, originals, traces, train, request_a)


def test_settings_name_every_method():
    assert list(SETTINGS) == list(METHODS)
    assert (RARE | set(FRAMED)) <= set(METHODS)
    assert not RARE & set(FRAMED)


def test_same_key_same_result_bit_for_bit(case):
    again, state = case.run(case.request)
    assert same(again, case.unlearned)
    assert same(state, case.next_state)


def test_key_matters_only_to_random_methods(case):
    others = case.keys[2:]
    states = case.prepare(others)
    moved, _ = case.forget(others, states, case.originals, case.request)
    assert same(states, case.state) == (case.name not in PREPARES_AT_RANDOM)
    assert same(moved, case.unlearned) == (case.name in NOT_RANDOM)


def test_another_request_or_model_compiles_nothing(case):
    another = make_request(case.train, np.arange(40, 47))
    assert another.forget.weights.shape == case.request.forget.weights.shape
    others = jax.tree.map(lambda leaf: leaf[::-1], case.originals)
    case.forget(case.keys[2:], case.state, others, another)
    assert case.traced == 1


@pytest.mark.slow
def test_models_together_on_a_wider_request_are_models_apart(case):
    # One program for two laws, since compiling is what costs here: models together
    # are models apart, and padding up to a larger bucket changes nothing.
    forget = case.request.forget
    wider = case.request._replace(forget=pad(forget, 2 * len(forget.weights)))
    together = case.run(wider)
    own = [tiny.quick_jit(f) for f in (case.method.prepare, case.method.forget)]
    for i in range(2):
        alone = case.alone(*own, i)
        assert_trees_close(tree.member(together, i), alone, rtol=1e-8, atol=1e-10)


def test_structure_shapes_and_dtypes_are_kept(case):
    for after, before in (
        (case.unlearned, case.originals),
        (case.next_state, case.state),
    ):
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)
        assert jax.tree.map(jnp.result_type, after) == jax.tree.map(
            jnp.result_type, before
        )
    assert tree.all_finite(case.unlearned)


def test_inputs_are_left_alone(case):
    handed = (case.state, case.originals, case.request, case.train)
    before = jax.tree.map(np.array, handed)
    case.prepare(case.keys[:2])
    case.run(case.request)
    assert same(handed, before)


def test_everyone_but_identity_moves_parameters(case):
    still = same(case.unlearned.params, case.originals.params)
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
    assert same(moved, case.originals) == (case.name in IDLE_ON_NOTHING)


@functools.cache
def problem(task, foreign):
    """Learner and data in float32, the shapes of an original and of its trace."""
    data = tiny_words.examples() if task == "tokens" else tiny.examples(np.float32)
    if task == "tokens":
        learner = tiny_words.learner(jnp.float32)
    elif foreign:
        learner = tiny.learner("foreign", jnp.float32)
    else:
        learner = tiny.learner("mlp", jnp.float32)
    if task == "regression":
        learner, data = learner._replace(loss=squared_error), tiny.numeric(data)
    return learner, data, trace_like(learner, data, points=2, segments=1)


PROMISES = [(name, task) for name, entry in METHODS.items() for task in entry.tasks]


@pytest.mark.parametrize(("name", "task"), PROMISES)
def test_every_task_that_is_promised_is_served_and_float32_stays(name, task):
    # Tracing is enough: shapes and dtypes are known before anything is compiled. The
    # first task has XLA's own convolution, whose loops run on the host where they can;
    # under vmap over models they cannot, even though the data are plain arrays.
    first = task == METHODS[name].tasks[0]
    learner, data, (variables, trace) = problem(task, first)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    method = method_of(name, learner)
    traces = (trace,) if method.reads_trace else ()
    given = (jax.random.key(0), variables, data, *traces)
    state = jax.eval_shape(method.prepare, *given)
    request = make_request(data, [0, 5, 6])
    forget = functools.partial(method.forget, request=request)
    kept = jax.eval_shape(forget, jax.random.key(0), state, variables)
    assert kept == (variables, state)


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
