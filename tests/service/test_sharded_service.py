"""Models by shards behind a service: killed at random moments, as if undisturbed.

As a script (a folder, kills, requests) it is the process whose children are killed.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
import pytest
from service.toy import tree
from tiny import examples, learner

from unlearn_jax.methods.sisa import sisa
from unlearn_jax.methods.stagewise import stagewise
from unlearn_jax.service.audit import verify
from unlearn_jax.service.disk import ServiceError
from unlearn_jax.service.history import APPLIED
from unlearn_jax.service.log import LOG_FILE
from unlearn_jax.service.open import open_service
from unlearn_jax.service.sharded import ERASING, sharded_requests
from unlearn_jax.storage.contents import Contents
from unlearn_jax.storage.store import Store

pytestmark = pytest.mark.optimised

ROOT = Path(__file__).resolve().parents[2]
CAPACITY, MANY = 60, 1000
ROWS = examples(np.float32, CAPACITY)
LONGEST = 2.0  # seconds after a child is under way


def model(kind="sisa", **settings):
    net = learner("mlp", np.float32, epochs=1)
    if kind == "sisa":
        return sisa(net, ROWS, CAPACITY, **({"shards": 3, "slices": 2} | settings))
    return stagewise(net, ROWS, CAPACITY, shards=3, slices=2, orders=2)


def rows_of(numbers):
    numbers = np.asarray(numbers)
    return {
        "numbers": numbers,
        "inputs": ROWS.inputs[numbers],
        "targets": ROWS.targets[numbers],
    }


def stream(count, seed=0):
    """Learning, deletions, corrections, refusals and repetitions, and what is there."""
    random, there, requests = np.random.default_rng(seed), set(range(40)), []
    requests.append(("all", "learn", rows_of(range(40))))
    while len(requests) < count:
        i = len(requests)
        gone = sorted(set(range(CAPACITY)) - there)
        within = sorted(there)
        what = random.integers(10)
        if what == 0:
            requests.append(requests[int(random.integers(i))])
        elif what == 1 and gone:
            requests.append((f"x{i}", "forget", {"numbers": np.array(gone[:1])}))
        elif what == 2 and within:
            requests.append((f"r{i}", "replace", rows_of(within[:2])))
        elif (what < 6 or len(within) < 8) and gone:
            chosen = random.choice(gone, min(2, len(gone)), replace=False)
            there |= set(chosen.tolist())
            requests.append((f"l{i}", "learn", rows_of(chosen)))
        else:
            chosen = random.choice(within, 1)
            there -= set(chosen.tolist())
            requests.append((f"f{i}", "forget", {"numbers": chosen}))
    return requests, sorted(there)


class Shards:
    """A service and its folder of models, opened and closed together."""

    def __init__(self, folder, kind="sisa", contents=Contents, **settings):
        self.store = Store(folder / "models", private=True)
        self.contents = contents(self.store)
        try:
            self.ours = sharded_requests(model(kind, **settings), self.contents)
            self.service = open_service(
                folder / "service",
                self.ours.start,
                self.ours.apply,
                snapshot_after=ERASING,
            )
        except BaseException:
            self.store.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        self.service.close(snapshot=kind is None)
        self.store.close()

    def predict(self):
        return self.ours.predict(self.service.state, ROWS.inputs)


def pieces(folder):
    return {
        path.name: path.read_bytes() for path in (folder / "models/pieces").iterdir()
    }


def files_of(shards):
    """The models that there should be, and no other."""
    names = shards.ours.apply._sharded.names(shards.service.state.learnt)
    return {f"{name}.npz" for name in names.flat if name}


def bits(state):
    leaves = jax.tree.leaves(state)
    return [(str(a.dtype), a.shape, np.asarray(a).tobytes()) for a in leaves]


def alone(kind, state):
    """State and predictions of a model that never had other rows."""
    ours, there = model(kind), np.flatnonzero(state.learnt.rows.weights > 0)
    fresh = ours.learn(ours.start(), *rows_of(there).values())
    fresh = fresh._replace(spent=state.learnt.spent)
    return fresh, ours.predict(ours.models(fresh, Contents()), ROWS.inputs)


@pytest.mark.parametrize("kind", ["sisa", "stagewise"])
def test_after_a_stream_all_is_that_of_the_rows_within(tmp_path, kind):
    requests, there = stream(12)
    with Shards(tmp_path, kind) as shards:
        entries = [shards.service.submit(*request) for request in requests]
        state = shards.service.state
        assert np.array_equal(np.flatnonzero(state.learnt.rows.weights), there)
        fresh, expected = alone(kind, state)
        assert bits(state.learnt) == bits(fresh)
        assert np.array_equal(shards.predict(), expected)
        assert set(pieces(tmp_path)) == files_of(shards)
    outcomes = {e.id[0]: e.outcome for e in entries if e.outcome != "applied"}
    assert set(outcomes) <= {"x"}
    assert all("is not there" in reason for reason in outcomes.values())
    assert entries[0].figures[1] == ("count", 40.0)


def test_no_row_and_no_model_of_it_stays_after_a_deletion(tmp_path):
    with Shards(tmp_path) as shards:
        shards.service.submit("a", "learn", rows_of(range(40)))
        before = pieces(tmp_path)
        figures = dict(
            shards.service.submit("b", "forget", {"numbers": np.array([7])}).figures
        )
        after = pieces(tmp_path)
        assert len(set(before) - set(after)) == figures["trained"] in (1.0, 2.0)
    row = ROWS.inputs[7].tobytes()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(row in path.read_bytes() for path in files)


class Dying(Contents):
    """Dies while the next stage is trained, once it is told to."""

    left = None

    def keep(self, name, make):
        if Dying.left is not None and not self.has(name):
            if Dying.left == 0:
                raise KeyboardInterrupt
            Dying.left -= 1
        super().keep(name, make)


@pytest.mark.parametrize("stages", [0, 4])
def test_one_that_dies_while_it_trains_goes_on_with_what_is_there(tmp_path, stages):
    requests, _ = stream(4)
    with Shards(tmp_path / "a") as shards:
        for request in requests:
            shards.service.submit(*request)
        expected, models = bits(shards.service.state), pieces(tmp_path / "a")
    Dying.left = stages
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            Shards(tmp_path / "b", contents=Dying) as shards,
        ):
            shards.service.submit(*requests[0])
    finally:
        Dying.left = None
    assert not stages or len(pieces(tmp_path / "b")) == stages
    with Shards(tmp_path / "b") as shards:
        assert [e.outcome for e in shards.service.entries] == ["applied"]
        for request in requests:
            shards.service.submit(*request)
        assert bits(shards.service.state) == expected
        assert pieces(tmp_path / "b") == models


def test_models_that_are_lost_are_trained_again_to_the_bit(tmp_path):
    with Shards(tmp_path) as shards:
        shards.service.submit("a", "learn", rows_of(range(40)))
        told_before, models = shards.predict(), pieces(tmp_path)
    for path in sorted((tmp_path / "models/pieces").iterdir())[::2]:
        path.unlink()
    with Shards(tmp_path) as shards:
        assert np.array_equal(shards.predict(), told_before)
        assert pieces(tmp_path) == models


def test_another_model_is_noticed_when_the_folder_is_opened(tmp_path):
    Shards(tmp_path).__exit__(None)
    for change in ({"slices": 1}, {"seed": 1}, {"epochs": 3}):
        with pytest.raises(ServiceError, match=r"other values|began with"):
            Shards(tmp_path, **change)
    Shards(tmp_path).__exit__(None)


@pytest.mark.parametrize(
    ("kind", "arrays", "says"),
    [
        ("erase", {}, "kind is 'erase'"),
        ("forget", rows_of([0]), "forget needs the arrays numbers; got"),
        ("renew", {"numbers": np.array([0])}, "renew needs the arrays none"),
        ("forget", {"numbers": np.array([CAPACITY])}, "expected 0 to 59"),
        ("learn", rows_of([1]) | {"inputs": np.ones((1, 5))}, "got inputs float64"),
        ("learn", rows_of([1]) | {"targets": np.int32([9])}, "rows to learn"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path, kind, arrays, says
):
    with Shards(tmp_path) as shards:
        before = tree(tmp_path)
        with pytest.raises(ValueError, match=says):
            shards.service.submit("a", kind, arrays)
        assert tree(tmp_path) == before
        assert shards.service.entries == ()


def in_memory(requests):
    """State, outcomes by id and scores where nothing is logged, killed or on disk."""
    ours = sharded_requests(model(), Contents())
    state, outcomes = ours.start, {}
    for name, kind, arrays in requests:
        if name in outcomes:
            continue
        try:
            state, figures = ours.apply(state, kind, arrays)
        except ValueError:
            outcomes[name] = False, {}
        else:
            outcomes[name] = True, figures
    return state, outcomes, ours.predict(state, ROWS.inputs)


def lines(folder):
    log = folder / "service" / LOG_FILE
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def child(folder, number, ready):
    """The whole stream; the programs come from the cache on disk.

    One in four is under way, and may be killed, while it opens; the others once they
    are open and have trained elsewhere, so that kills fall among requests.
    """
    warnings.simplefilter("ignore")
    early = lines(folder) % 4 == 0
    jax.numpy.zeros(()).block_until_ready()
    if early:
        os.write(ready, b"!")
    with Shards(folder) as shards:
        if not early:
            ours = shards.ours.apply._sharded
            elsewhere = ours.learn(ours.start(), *rows_of(range(40)).values())
            ours.models(elsewhere, Contents())
            os.write(ready, b"!")
        for request in stream(number)[0]:
            shards.service.submit(*request)
    os._exit(0)


@pytest.mark.parametrize(
    ("kills", "number"), [pytest.param(40, MANY, marks=pytest.mark.slow)], ids=str
)
def test_a_thousand_requests_with_kills_lose_nothing(tmp_path, kills, number):
    requests, there = stream(number)
    expected, outcomes, scores = in_memory(requests)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    settings = {
        "PYTHONPATH": paths,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    place = tmp_path / "killed"
    words = [sys.executable, str(Path(__file__)), str(place), str(kills), str(number)]
    done = subprocess.run(
        words,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed, folders, places = map(int, done.stdout.split())
    print(f"{killed} kills, behind {places} different lines of the log")
    assert killed == kills
    assert places > kills // 2  # they fell among requests, not before the first
    for folder in (place / str(i) for i in range(folders)):
        history = verify(folder / "service")
        assert history.pending is None
        found = {e.id: (e.outcome == APPLIED, dict(e.figures)) for e in history.entries}
        assert list(found.items()) == list(outcomes.items())
        with Shards(folder) as shards:
            assert bits(shards.service.state) == bits(expected)
            assert np.array_equal(shards.predict(), scores)
            assert set(pieces(folder)) == files_of(shards)
    state = shards.service.state
    assert np.array_equal(np.flatnonzero(state.learnt.rows.weights), there)
    fresh, never = alone("sisa", state)
    assert bits(state.learnt) == bits(fresh)
    assert np.array_equal(scores, never)


if __name__ == "__main__":
    from service import killing

    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    root, number, reached = Path(sys.argv[1]), int(sys.argv[3]), set()
    killing.child, killing.LONGEST, killing.LAST = child, LONGEST, 1800.0
    run = killing.run_and_kill
    if run(root / "first", 20, 600.0):  # fills the cache
        raise SystemExit("the first run was not to be killed")

    def run_and_note(folder, *rest):
        killed = run(folder, *rest)
        if killed:
            reached.add((folder, lines(folder)))
        return killed

    killing.run_and_kill = run_and_note
    killing.main(root, int(sys.argv[2]), number)
    print(len(reached))
