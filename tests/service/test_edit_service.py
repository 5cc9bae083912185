"""Edited maps behind a service: killed at random moments, they are the batch of edits.

As a script (a folder, kills, requests) it is the process whose children are killed.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.methods.editing.maps import outputs
from unlearn_jax.methods.editing.rows import anchor_rows, join_rows, preserve_rows
from unlearn_jax.methods.editing.state import edit_add, edited
from unlearn_jax.service.audit import verify
from unlearn_jax.service.disk import ServiceError
from unlearn_jax.service.editing import EditRequests, edit_requests
from unlearn_jax.service.open import open_service

ROOT = Path(__file__).resolve().parents[2]
SECRET = b"a key of the tests"
D = 6
LONGEST = 6.0  # seconds after a child is under way


def maps():
    random = np.random.default_rng(0)
    sizes = {"key": 3, "value": 4}
    return {name: jnp.asarray(random.normal(size=(D, k))) for name, k in sizes.items()}


def mine(**changes):
    return edit_requests(maps(), **({"l2": 0.5, "secret": SECRET} | changes))


def opened(folder, **options):
    own = mine()
    settings = {"snapshot_every": 50, "snapshot_after": ()} | options
    return open_service(folder, own.start, own.apply, **settings)


def erased(number):
    """Rows of a concept: two keys that go to others, one that stays."""
    keys = np.random.default_rng(100 + number).normal(size=(3, 2, D))
    own = anchor_rows(maps(), keys[0], keys[1])
    return join_rows(own, preserve_rows(maps(), keys[2], 0.25))


def stream(number):
    """Edits, some withdrawn or replaced later; and what stands at the end."""
    requests, standing = [], []
    for i in range(number):
        if i % 8 == 3:
            gone = standing.pop(0)
            rows = EditRequests.rows(erased(gone))
            requests.append((f"w{i}", "withdraw", rows))
        elif i % 8 == 7:
            gone = standing.pop(0)
            both = EditRequests.rows(erased(gone)) | EditRequests.rows(
                erased(i), "new_"
            )
            requests.append((f"r{i}", "replace", both))
            standing.append(i)
        else:
            requests.append((f"e{i}", "edit", EditRequests.rows(erased(i))))
            standing.append(i)
    return requests, standing


def bits(state):
    leaves = jax.tree.leaves(state)
    return [(str(a.dtype), a.shape, np.asarray(a).tobytes()) for a in leaves]


def at_once(standing):
    """The sums of everything that stands, added in another order."""
    rows = join_rows(*(erased(i) for i in sorted(standing, reverse=True)))
    return edit_add(mine().start.edits, rows)


def sums(edits):
    """All of a state that requests decide, without what the latest solve was told."""
    ridge = edits.ridge
    names = ("weight", "gram", "gram_low", "moment", "moment_low", "count", "exact")
    return bits({name: getattr(ridge, name) for name in names})


def test_a_sequence_behind_the_service_is_the_batch_bit_for_bit(tmp_path):
    requests, standing = stream(12)
    with opened(tmp_path, snapshot_every=5) as service:
        for request in requests:
            assert service.submit(*request).outcome == "applied"
        refused = service.submit("gone", "withdraw", EditRequests.rows(erased(0)))
        assert "never learned" in refused.outcome
        figures = dict(service.entries[-2].figures)
        assert figures["exact"] == 1
        assert figures["residual"] < 1e-15
        edits = service.state.edits
    assert sums(edits) == sums(at_once(standing))
    moved = outputs(edited(edits), erased(standing[0]).inputs)
    assert float(jnp.linalg.norm(moved - outputs(maps(), erased(standing[0]).inputs)))
    with opened(tmp_path) as service:
        assert sums(service.state.edits) == sums(edits)


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    good = EditRequests.rows(erased(0))
    wrong = [
        ("learn", good, "kind is 'learn'"),
        ("edit", {"keys": good["keys"]}, "needs the arrays keys, shifts"),
        ("replace", good, "new_keys, new_shifts"),
        ("edit", good | {"keys": good["keys"][:, :2]}, r"expected keys \(n, 6\)"),
        ("edit", good | {"weights": good["weights"][:1]}, r"weights \(n,\)"),
        ("edit", good | {"keys": good["keys"].astype(np.float32)}, "of float64"),
        ("edit", good | {"keys": np.full((4, D), np.nan)}, "row 0 is not finite"),
        ("edit", good | {"weights": -good["weights"]}, "weight is negative"),
    ]
    with opened(tmp_path) as service:
        for kind, arrays, says in wrong:
            with pytest.raises(ValueError, match=says) as caught:
                service.submit("a", kind, arrays)
            assert "\n" not in str(caught.value)
        assert service.entries == ()
    for changes in ({"l2": 0.25}, {"maps": {"key": jnp.ones((D, 7))}}):
        given = {"maps": maps(), "l2": 0.5, "secret": SECRET} | changes
        other = edit_requests(**given)
        with pytest.raises(ServiceError, match=r"other values|began with"):
            open_service(tmp_path, other.start, other.apply)
    with pytest.raises(ValueError, match="key of 16 to 64 bytes"):
        mine(secret=b"short")


def child(folder, number, ready):
    warnings.simplefilter("ignore")
    os.write(ready, b"!")
    with opened(folder) as service:
        for request in stream(number)[0]:
            service.submit(*request)
    os._exit(0)


@pytest.mark.slow
def test_a_thousand_requests_with_kills_lose_nothing(quick_path):
    kills, number = 20, 1000
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    settings = {
        "PYTHONPATH": paths,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(quick_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    words = [sys.executable, __file__, str(quick_path), str(kills), str(number)]
    done = subprocess.run(
        words,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed, folders = map(int, done.stdout.split())
    assert killed == kills
    requests, standing = stream(number)
    expected = sums(at_once(standing))
    for folder in (quick_path / str(i) for i in range(folders)):
        history = verify(folder)
        assert history.pending is None
        assert [entry.id for entry in history.entries] == [r[0] for r in requests]
        assert {entry.outcome for entry in history.entries} == {"applied"}
        with opened(folder) as service:
            assert sums(service.state.edits) == expected
            assert bool(service.state.edits.ridge.exact)


if __name__ == "__main__":
    from service import killing

    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    killing.child, killing.LONGEST = child, LONGEST
    root, number = Path(sys.argv[1]), int(sys.argv[3])
    if killing.run_and_kill(root / "first", 8, 600.0):  # fills the cache
        raise SystemExit("the first run was not to be killed")
    killing.main(root, int(sys.argv[2]), number)
