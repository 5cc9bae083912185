"""A head behind a service: killed at random moments, it knows what it should.

As a script (a folder, how many kills) it is the process whose children are killed.
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
from service.toy import told, tree

from unlearn_jax.data.digits import digits
from unlearn_jax.service.analytic import ERASING, analytic_requests
from unlearn_jax.service.audit import audit, verify
from unlearn_jax.service.disk import ServiceError
from unlearn_jax.service.open import open_service

pytestmark = pytest.mark.optimised

ROOT = Path(__file__).resolve().parents[2]
SECRET = b"a key of the tests"
SHAPE = (8, 8, 1)
SETTINGS = {"width": 16, "l2": 0.1}
LONGEST = 2.5  # seconds after a child is under way


INPUTS, TARGETS, _ = map(np.asarray, digits().splits.train)
_TWO = np.flatnonzero(TARGETS < 2)[:80]
INPUTS, TARGETS = INPUTS[_TWO], TARGETS[_TWO]


def flat(x):
    return np.asarray(x).reshape(len(x), -1)


def mine(*, seed=0, secret=SECRET, features=flat, **settings):
    return analytic_requests(
        features,
        64,
        key=jax.random.key(seed),
        secret=secret,
        probe=np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, *SHAPE),
        **(SETTINGS | settings),
    )


def opened(folder, requests, **options):
    options = {"snapshot_every": 3, "snapshot_after": ERASING} | options
    return open_service(folder, requests.start, requests.apply, **options)


def part(chosen, prefix="", **changes):
    """Arrays of a request for these of the rows."""
    arrays = {"inputs": INPUTS[chosen], "targets": TARGETS[chosen]} | changes
    return {prefix + name: array for name, array in arrays.items()}


def spoiled(chosen):
    """Inputs of these rows, the last of them with a NaN."""
    inputs = INPUTS[chosen].copy()
    inputs[-1, 3] = np.nan
    return inputs


def rows_of(label, chosen):
    return [i for i in chosen if TARGETS[i] == label]


def stream():
    """Requests with refusals, a repeated id, a class that goes and comes back.

    Also which rows are within at the end.
    """
    at = np.arange(80)
    after_d = [*at[4:20], *at[30:60]]
    ones = rows_of(1, after_d)
    within = [*rows_of(0, after_d), *at[20:28], *at[:2]]
    requests = [
        ("a", "learn", part(at[:20])),
        ("b", "learn", part(at[20:40])),
        ("c", "forget", part(at[:4])),
        ("never", "forget", part(at[60:62])),
        ("a", "learn", part(at[:20])),
        ("twice", "forget", part(at[2:6])),
        ("d", "replace", part(at[20:30]) | part(at[40:60], "new_")),
        ("old", "replace", part(at[60:62]) | part(at[62:64], "new_")),
        ("class", "forget", part(ones)),
        ("e", "learn", part([*at[20:28], *at[:2], *at[70:72]])),
        ("f", "forget", part(at[70:72])),
        ("c", "forget", part(at[:4])),
    ]
    return requests, within


def bits(state):
    leaves = jax.tree.leaves(state)
    return [(str(a.dtype), a.shape, np.asarray(a).tobytes()) for a in leaves]


def child(folder, number, ready):
    """The whole stream; the programs come from the cache on disk."""
    warnings.simplefilter("ignore")
    requests = mine()
    os.write(ready, b"!")
    with opened(folder, requests) as service:
        for request in stream()[0][:number]:
            service.submit(*request)
    os._exit(0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Requests, the head, states by bits, and entries of a run to the end."""
    head, states = mine(), {}
    with opened(tmp_path_factory.mktemp("undisturbed"), head) as service:
        states[0] = bits(service.state)
        for request in stream()[0]:
            service.submit(*request)
            states[len(service.entries)] = bits(service.state)
        return head, states, service.entries, service.state


def test_after_the_stream_the_state_is_that_of_the_rows_within(undisturbed):
    head, _, entries, state = undisturbed
    requests, within = stream()
    asked = part(within)
    fresh = head.head.learn(head.start.learnt, *asked.values())
    assert bits(state.learnt) == bits(fresh)
    assert bool(state.learnt.ridge.exact)
    refused = [e.id for e in entries if e.outcome != "applied"]
    assert refused == ["never", "twice", "old"]
    assert [e.id for e in entries] == list(dict.fromkeys(r[0] for r in requests))
    figures = {e.id: dict(e.figures) for e in entries}
    assert figures["f"]["count"] == len(within)
    assert (figures["d"]["rows"], figures["d"]["new_rows"]) == (10, 20)
    assert (figures["class"]["columns"], figures["e"]["columns"]) == (1, 2)
    assert all(f["residual"] < 1e-15 and f["exact"] for f in figures.values() if f)
    reasons = {e.id: e.outcome for e in entries}
    assert "2 were never learned" in reasons["never"]
    assert "2 were never learned (positions 0, 1)" in reasons["twice"]
    assert "2 were never learned" in reasons["old"]


def test_no_rows_stay_after_a_kind_that_erases(tmp_path, undisturbed):
    service = opened(tmp_path, undisturbed[0], snapshot_every=99)
    left = []
    for request in stream()[0][:7]:
        service.submit(*request)
        left.append(len(os.listdir(tmp_path / "pieces")))
    assert left == [1, 2, 0, 0, 0, 0, 0]
    row = INPUTS[25].tobytes()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(row in path.read_bytes() for path in files)
    service.close()


@pytest.mark.parametrize(
    "change",
    [
        {"secret": b"another key of tests"},
        {"features": lambda x: flat(x)[:, ::-1] + 1},
        {"seed": 1},
        {"l2": 0.2},
        {"width": 17},
        {"form": "inverse"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_head_is_noticed_when_the_folder_is_opened(tmp_path, change):
    opened(tmp_path, mine()).close()
    with pytest.raises(ServiceError, match=r"other values|has .* = .*began with"):
        opened(tmp_path, mine(**change))
    opened(tmp_path, mine()).close()


@pytest.mark.parametrize(
    ("kind", "arrays", "says"),
    [
        ("erase", part([0]), "kind is 'erase'"),
        ("learn", {"inputs": INPUTS[:1]}, "needs the arrays inputs, targets"),
        ("learn", part([0]) | {"weight": np.ones(1)}, "takes weights, got"),
        ("replace", part([0]), "new_inputs, new_targets"),
        ("learn", part([0], inputs=INPUTS[:1, :4]), r"float32\(n, 8, 8, 1\)"),
        ("learn", part([0], inputs=np.ones((1, *SHAPE))), r"float64\[1, 8, 8, 1\]"),
        ("learn", part([0], targets=np.int32(0)), "and no list of targets"),
        (
            "learn",
            part([0]) | {"weights": np.float64(1)},
            r"weights \(1,\), one for each row",
        ),
        ("learn", part([0, 1], targets=np.zeros(1, int)), "2 inputs and 1 targets"),
        ("learn", part([0], targets=np.array(["x"])), "integer labels"),
        ("learn", part([0, 1]) | {"weights": np.ones((2, 1))}, r"weights \(2,\), one"),
        ("learn", part([0, 1]) | {"weights": np.ones(3)}, r"weights \(2,\), one"),
        ("learn", part([0]) | {"weights": np.array([1j])}, "real numbers as weights"),
        ("learn", part([0]) | {"weights": np.array(["1"])}, "real numbers as weights"),
        ("forget", part([0]) | {"weights": np.array([np.nan])}, "got nan in row 0"),
        ("learn", part([0, 1]) | {"weights": np.array([1, -2])}, "got -2 in row 1"),
        ("learn", part([0], targets=np.ones(1)), "integer labels"),
        ("learn", part([0], targets=np.ones((1, 1), int)), "integer labels"),
        ("learn", part([]), "at least one row"),
        (
            "learn",
            part([0, 1], inputs=spoiled([0, 1])),
            "NaN or infinity in inputs, row 1",
        ),
        (
            "replace",
            part([0]) | part([0, 1], "new_", inputs=spoiled([0, 1])),
            "NaN or infinity in new_inputs, row 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path, undisturbed, kind, arrays, says
):
    head = undisturbed[0]
    with opened(tmp_path, head) as service:
        before = tree(tmp_path)
        with pytest.raises(ValueError, match=says) as caught:
            service.submit("a", kind, arrays)
        assert "\n" not in str(caught.value)
        assert tree(tmp_path) == before
    with opened(tmp_path, head) as service:
        assert service.entries == ()


def test_a_row_of_weight_zero_may_hold_nan(undisturbed):
    head = undisturbed[0]
    arrays = part([0, 1], inputs=spoiled([0, 1])) | {"weights": np.array([1.0, 0.0])}
    state, _ = head.apply(head.start, "learn", arrays)
    expected, _ = head.apply(head.start, "learn", part([0]))
    assert bits(state) == bits(expected)


def test_what_an_older_version_logged_unchecked_is_refused_then(undisturbed):
    head = undisturbed[0]
    for wrong in ({"weights": np.ones((1, 1))}, {"inputs": spoiled([1, 0])[1:]}):
        with pytest.raises(ValueError, match=r"expected weights|NaN or infinity"):
            head.apply(head.start, "learn", part([0]) | wrong)


@pytest.mark.parametrize(
    ("form", "names"),
    [("inverse", {"margin"}), ("kept", {"error", "drift", "repairs"})],
)
def test_each_form_tells_the_figures_that_it_has(form, names):
    head = mine(form=form)
    state, figures = head.apply(head.start, "learn", part(range(20)))
    assert set(figures) >= {"rows", "count", "columns"} | names
    ridge = state.learnt.ridge
    told = set(figures) - {"rows", "columns"}
    assert all(figures[name] == float(getattr(ridge, name)) for name in told)


def test_rows_of_weight_zero_are_not_counted(undisturbed):
    head, within = undisturbed[0], np.arange(10)
    weights = np.where(within < 6, 1.0, 0.0)
    arrays = part(within) | {"weights": weights}
    state, figures = head.apply(head.start, "learn", arrays)
    assert figures["rows"] == figures["count"] == 6
    expected, _ = head.apply(head.start, "learn", part(within[:6]))
    assert bits(state) == bits(expected)


@pytest.mark.parametrize("kills", [pytest.param(50, marks=pytest.mark.slow)], ids=str)
def test_killed_at_random_moments_the_head_is_as_if_undisturbed(
    tmp_path, undisturbed, kills
):
    head, states, expected, _ = undisturbed
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    settings = {
        "PYTHONPATH": paths,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    words = [sys.executable, str(Path(__file__)), str(tmp_path), str(kills)]
    done = subprocess.run(
        words,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed, folders = map(int, done.stdout.split())
    assert killed == kills
    for folder in (tmp_path / str(i) for i in range(folders)):
        history = verify(folder)
        assert history.pending is None
        assert told(history.entries) == told(expected)
        assert os.listdir(folder / "pieces") == []
        lines = [[cell.text for cell in row] for row in audit(folder).rows]
        assert [line[1] for line in lines] == [e.id for e in expected]
        applied = [line for line in lines if line[6] == "applied"]
        assert all("residual" in line[7] for line in applied)
        with opened(folder, head) as service:
            assert bits(service.state) == states[len(expected)]


if __name__ == "__main__":
    from service import killing

    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    root, number = Path(sys.argv[1]), len(stream()[0])
    killing.child, killing.LONGEST = child, LONGEST
    if killing.run_and_kill(root / "first", number, 600.0):  # fills the cache
        raise SystemExit("the first run was not to be killed")
    killing.main(root, int(sys.argv[2]), number)
