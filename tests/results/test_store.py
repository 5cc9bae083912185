import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from results.fake_records import fake_run

from unlearn_jax.results.resume import find_unfinished, open_run, run_folder
from unlearn_jax.results.run import read_run, write_run
from unlearn_jax.storage.piece import PieceError
from unlearn_jax.storage.store import BusyError, Store
from unlearn_jax.storage.write import temporary_path

ROOT = Path(__file__).resolve().parents[2]
ARRAYS = {
    "w/kernel": np.arange(6.0).reshape(2, 3),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.float32(3.0),
    "names": np.array(["a", "bc"]),
    "file": np.arange(3, dtype=">i4"),
}


def test_a_piece_comes_back_bit_for_bit(tmp_path):
    data = {"rows": [[0.1 + 0.2, None, "x"]], "bad": float("inf")}
    half = jnp.arange(4, dtype=jnp.bfloat16)
    with Store(tmp_path) as store:
        assert not store.has("original/seed-0")
        store.save("original/seed-0", ARRAYS | {"half": half}, data)
        assert store.has("original/seed-0")
        arrays, back = store.load("original/seed-0")
    assert back == data
    assert set(arrays) == {*ARRAYS, "half"}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array, strict=False)
        assert arrays[name].shape == array.shape
    assert arrays["half"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(arrays["half"], half)


def test_numpy_opens_a_piece_as_it_is(tmp_path):
    with Store(tmp_path) as store:
        store.save("a", {"x": np.arange(3)})
        with np.load(store.path("a")) as members:
            np.testing.assert_array_equal(members["array:x"], np.arange(3))


def test_objects_are_refused(tmp_path):
    with Store(tmp_path) as store, pytest.raises(ValueError, match="Object arrays"):
        store.save("a", {"x": np.array([object()])})


def test_names_never_share_a_file_and_stay_inside(tmp_path):
    long = "x" * 300
    names = ["a/b", "a%2Fb", "a-b", "..", "../up", ".", "a b", "ä", long, long + "y"]
    with Store(tmp_path) as store:
        for i, name in enumerate(names):
            store.save(name, {"i": np.int64(i)})
        paths = {store.path(name).resolve() for name in names}
        assert len(paths) == len(names)
        assert all(path.parent == tmp_path.resolve() / "pieces" for path in paths)
        for i, name in enumerate(names):
            assert store.load(name).arrays["i"] == i
        with pytest.raises(ValueError, match="needs a name"):
            store.path("")


def test_a_missing_piece_is_a_key_error(tmp_path):
    with Store(tmp_path) as store, pytest.raises(KeyError, match="no finished piece"):
        store.load("a")


@pytest.mark.parametrize("harm", ["truncate", "flip", "empty", "extend"])
def test_a_damaged_piece_says_what_to_do(tmp_path, harm):
    with Store(tmp_path) as store:
        store.save("a", {"x": np.arange(100.0)})
        path = store.path("a")
        content = bytearray(path.read_bytes())
        if harm == "flip":
            content[len(content) // 2] ^= 1
        harmed = {"truncate": content[:-30], "empty": b"", "extend": content + b"\n"}
        path.write_bytes(bytes(harmed.get(harm, content)))
        with pytest.raises(PieceError) as caught:
            store.load("a")
        message = str(caught.value)
        assert str(path) in message
        assert "Delete that file and run the same command again" in message
        path.unlink()
        assert not store.has("a")


def test_leftovers_are_ignored_and_removed(tmp_path):
    with Store(tmp_path) as store:
        store.save("a", {"x": np.arange(3)})
        leftover = temporary_path(store.path("b").parent)
        leftover.write_bytes(b"half")
        assert not store.has("b")
    with Store(tmp_path) as store:
        assert not leftover.exists()
        assert store.has("a")


def test_a_second_process_is_told(tmp_path):
    message = "Another process is writing"
    with Store(tmp_path), pytest.raises(BusyError, match=message):
        Store(tmp_path)
    with Store(tmp_path):
        pass


def test_a_killed_process_leaves_whole_pieces_and_no_lock(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from unlearn_jax.storage.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for i in range(10**6):\n"
        "    store.save(f'piece/{i}', {'x': np.full(20000, float(i))}, {'i': i})\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    pieces = tmp_path / "pieces"
    while len(list(pieces.glob("piece*"))) < 5:
        assert child.poll() is None
        time.sleep(0.01)
    with pytest.raises(BusyError):
        Store(tmp_path)
    child.kill()
    child.wait()
    with Store(tmp_path) as store:
        assert not list(pieces.glob(".*"))
        found = len(list(pieces.iterdir()))
        assert found >= 5
        for i in range(found):
            piece = store.load(f"piece/{i}")
            assert piece.data == {"i": i}
            np.testing.assert_array_equal(piece.arrays["x"], float(i))


def test_the_same_command_goes_on_and_a_finished_run_starts_anew(tmp_path):
    run = fake_run(seconds=None)
    store, first = open_run(tmp_path, run)
    store.save("a", {"x": np.arange(2)})
    with pytest.raises(BusyError):
        open_run(tmp_path, run)
    store.close()

    later = run._replace(id="20260102T040000-ab12cd", started="later")
    store, second = open_run(tmp_path, later)
    assert (second.id, second.started) == (first.id, first.started)
    assert store.has("a")
    write_run(store.folder, second._replace(seconds=3.0))
    (store.folder / "rows.jsonl").touch()
    store.close()

    store, third = open_run(tmp_path, later)
    assert third.id == later.id
    assert not store.has("a")
    assert read_run(store.folder).seconds is None
    store.close()


def test_runs_within_one_second_do_not_share_a_folder(tmp_path):
    run = fake_run(seconds=1.0)
    write_run(run_folder(tmp_path, run), run)
    (run_folder(tmp_path, run) / "rows.jsonl").touch()
    store, other = open_run(tmp_path, run._replace(seconds=None))
    store.close()
    assert other.id != run.id
    assert other.id.endswith(run.config_hash)


def test_the_latest_unfinished_run_of_this_configuration_and_code_is_found(tmp_path):
    base = fake_run(seconds=None)
    assert find_unfinished(tmp_path, base) is None
    times = {"20260101T000000": None, "20260103T000000": None, "20260104T000000": 1.0}
    for when, seconds in times.items():
        run = base._replace(id=f"{when}-ab12cd", seconds=seconds)
        write_run(run_folder(tmp_path, run), run)
        (run_folder(tmp_path, run) / "rows.jsonl").touch()
    other = base._replace(id="20260105T000000-ffffff")
    write_run(run_folder(tmp_path, other), other)
    found = find_unfinished(tmp_path, base)
    assert found is not None
    assert found.name == "20260103T000000-ab12cd"
    for others in (
        {"source": "other"},
        {"jax": "0.0"},
        {"config": base.config | {"model": "cnn"}},  # of the same six digits
        {"inputs": {"data": "other"}},
    ):
        assert find_unfinished(tmp_path, base._replace(**others)) is None
    bare = tmp_path / "compare" / "20260106T000000-ab12cd"
    bare.mkdir()
    assert find_unfinished(tmp_path, base) == bare
    (bare / "models").mkdir()
    assert find_unfinished(tmp_path, base) == found


def test_a_damaged_description_is_told_and_costs_no_piece(tmp_path):
    run = fake_run(seconds=None)
    store, first = open_run(tmp_path, run)
    store.save("a", {"x": np.arange(2)})
    store.close()
    path = store.folder / "run.json"
    path.write_text(path.read_text().replace("digits", "dugits"))
    with pytest.warns(RuntimeWarning, match=r"run\.json.*checksum.*delete it"):
        store, second = open_run(tmp_path, run)
    store.close()
    assert second.id == first.id
    assert store.has("a")
    assert read_run(store.folder).config == run.config
    path.unlink()
    assert find_unfinished(tmp_path, run) == store.folder
    assert find_unfinished(tmp_path, run._replace(inputs={})) is None
    path.write_text("{")
    store.path("this run").write_bytes(b"damaged too")
    with pytest.warns(RuntimeWarning, match=r"run\.json"):
        assert find_unfinished(tmp_path, run) is None


def test_without_its_rows_a_finished_run_is_gone_on_with(tmp_path):
    run = fake_run(seconds=2.0)
    write_run(run_folder(tmp_path, run), run)
    assert find_unfinished(tmp_path, run) == run_folder(tmp_path, run)
    (run_folder(tmp_path, run) / "rows.jsonl").touch()
    assert find_unfinished(tmp_path, run) is None
