import gc
import os
import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from problems import two_layer

from unlearn_jax.train import checkpoint
from unlearn_jax.train.checkpoint import (
    CheckpointError,
    export_npz,
    load,
    load_as_written,
    save,
)
from unlearn_jax.train.fit import start_fit
from unlearn_jax.types import Variables

TREE = {
    "wide": jnp.array([1.0, -0.0, jnp.nan, jnp.inf, 1e-310]),
    "half": jnp.array([0.1, 3.0], jnp.bfloat16),
    "blocks": {0: jnp.arange(3, dtype=jnp.int32), 1: jnp.ones((), jnp.float32)},
    "none": {},
}


def same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for a, e in pairs:
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        assert np.asarray(a).tobytes() == np.asarray(e).tobytes()


def plus_one(values):
    return jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), values)


def test_values_of_every_dtype_come_back_bit_for_bit(tmp_path):
    save(tmp_path / "a", TREE)
    same_bits(load(tmp_path / "a", TREE), TREE)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), TREE)
    same_bits(load(str(tmp_path / "a"), like), TREE)


def test_variables_and_the_state_of_a_run_come_back_bit_for_bit(tmp_path, key):
    learner, _ = two_layer()
    state = start_fit(key, learner)
    like = jax.eval_shape(lambda: start_fit(key, learner))
    for name, values, shape in (
        ("state", state, like),
        ("variables", state.train.variables, like.train.variables),
    ):
        save(tmp_path / "new" / "folder" / name, values)
        back = load(tmp_path / "new" / "folder" / name, shape)
        same_bits(back, values)
        assert type(back) is type(values)


def test_an_array_without_an_entry_comes_back_beside_others(tmp_path):
    none, bare = jnp.zeros((0, 3)), np.zeros(0, np.int32)
    values = {"none": none, "bare": bare, "a": jnp.ones(2)}
    save(tmp_path / "c", values)
    found = load(tmp_path / "c", values)
    for name, leaf in values.items():
        assert found[name].shape == leaf.shape
        assert found[name].dtype == leaf.dtype
        np.testing.assert_array_equal(found[name], leaf)


def test_numpy_arrays_are_saved_too(tmp_path):
    save(tmp_path / "a", {"x": np.arange(3.0)})
    same_bits(load(tmp_path / "a", {"x": np.zeros(3)}), {"x": jnp.arange(3.0)})


def test_a_nested_dict_comes_back_without_a_tree_like_it(tmp_path):
    tree = {"a": {"b": TREE["wide"], "0": TREE["half"]}, "c d[1]": jnp.zeros((2, 3, 1))}
    save(tmp_path / "a", tree)
    same_bits(load_as_written(tmp_path / "a"), tree)


def test_what_does_not_tell_its_structure_is_refused(tmp_path):
    save(tmp_path / "numbered", {0: jnp.zeros(2)})
    save(tmp_path / "listed", {"a": [jnp.zeros(2)]})
    (tmp_path / "empty").mkdir()
    for name in ("numbered", "listed", "empty", "missing"):
        with pytest.raises(CheckpointError, match=f"{name} does not tell its struct"):
            load_as_written(tmp_path / name)
    save(tmp_path / "a", {"x": jnp.arange(9.0)})
    largest = max((tmp_path / "a" / "d").iterdir(), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="bytes instead"):
        load_as_written(tmp_path / "a")


def test_an_older_checkpoint_of_the_same_name_is_replaced_and_nothing_is_left(tmp_path):
    save(tmp_path / "a", TREE)
    save(tmp_path / "a", plus_one(TREE))
    same_bits(load(tmp_path / "a", TREE), plus_one(TREE))
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("rename", [0, 1])
def test_dying_in_a_replacement_leaves_the_old_or_the_new_one(
    tmp_path, monkeypatch, rename
):
    """It renames twice, the old one away and the new one in; dies before either."""
    save(tmp_path / "a", TREE)
    real, done = Path.rename, []

    def dying(self, target):
        if len(done) == rename:
            raise KeyboardInterrupt
        done.append(self.name)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", dying)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "a", plus_one(TREE))
    monkeypatch.undo()
    assert len(done) == rename
    same_bits(load(tmp_path / "a", TREE), plus_one(TREE) if rename else TREE)
    save(tmp_path / "a", TREE)
    same_bits(load(tmp_path / "a", TREE), TREE)
    assert os.listdir(tmp_path) == ["a"]


def test_a_failed_write_keeps_the_older_checkpoint(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    save(tmp_path / "a", TREE)
    monkeypatch.setattr(ocp.StandardCheckpointer, "save", full)
    with pytest.raises(
        CheckpointError, match=r"could not write .*a \(.*No space.*free"
    ):
        save(tmp_path / "a", plus_one(TREE))
    same_bits(load(tmp_path / "a", TREE), TREE)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"could not write .*file/a"):
        save(tmp_path / "file" / "a", TREE)


def test_what_a_killed_write_leaves_is_no_checkpoint_and_is_swept_away(
    tmp_path, monkeypatch
):
    def killed(*_):
        raise KeyboardInterrupt

    save(tmp_path / "whole", TREE)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "folder_digests", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "a", TREE)
    assert len(os.listdir(tmp_path)) == 2
    with pytest.raises(
        CheckpointError, match=f"no checkpoint at {tmp_path / 'a'}: .*run"
    ):
        load(tmp_path / "a", TREE)
    save(tmp_path / "a", TREE)
    assert sorted(os.listdir(tmp_path)) == ["a", "whole"]


def test_neighbours_of_like_names_are_left_alone(tmp_path):
    names = ["a.tmpl", "a.tmp", "a.tmp-old", ".a.tmp", ".unlearn-a.tmp", "a.orbax-tmp"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious.txt").write_text("not a checkpoint")
    for _ in range(2):
        save(tmp_path / "a", TREE)
    assert sorted(os.listdir(tmp_path)) == sorted(["a", *names])
    for name in names:
        assert (tmp_path / name / "precious.txt").is_file()


def test_a_folder_that_is_no_checkpoint_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    save(tmp_path / "a", TREE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"mine \(it is there already and is no"):
        save(tmp_path / "mine", TREE)
    assert (tmp_path / "mine" / "precious.txt").is_file()
    assert sorted(os.listdir(tmp_path)) == ["a", "mine"]


def test_a_flipped_bit_in_any_file_is_told_by_name(tmp_path):
    save(tmp_path / "a", TREE)
    drawn = np.random.default_rng(0)
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        good = path.read_bytes()
        for _ in range(5):
            bad = bytearray(good)
            bad[drawn.integers(len(good))] ^= 1 << drawn.integers(8)
            path.write_bytes(bad)
            says = "is damaged" if path.name == "contents.json" else "checksum"
            with pytest.raises(CheckpointError, match=says):
                load(tmp_path / "a", TREE)
        path.write_bytes(good)
    same_bits(load(tmp_path / "a", TREE), TREE)


def test_a_full_disk_is_one_line_without_the_logs_of_orbax(tmp_path, capfd):
    wide = {f"w{i}": jnp.asarray(np.arange(30_000.0) ** i) for i in range(3)}
    save(tmp_path / "a", TREE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"/a \(File too large\); free room"):
            save(tmp_path / "a", wide)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == ["a"]
    same_bits(load(tmp_path / "a", TREE), TREE)


def test_a_checkpoint_with_any_file_missing_is_refused_by_name(tmp_path):
    save(tmp_path / "whole", TREE)
    files = [p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*")]
    assert len(files) > 8
    for i, file in enumerate(files):
        broken = tmp_path / f"broken{i}"
        shutil.copytree(tmp_path / "whole", broken)
        if (broken / file).is_dir():
            shutil.rmtree(broken / file)
        else:
            (broken / file).unlink()
        with pytest.raises(CheckpointError) as caught:
            load(broken, TREE)
        assert f"the checkpoint at {broken} is damaged" in str(caught.value)
        assert "delete that folder and run the same command again" in str(caught.value)


def test_a_file_that_is_cut_short_is_named(tmp_path):
    save(tmp_path / "a", TREE)
    largest = max((tmp_path / "a" / "d").iterdir(), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"d/{largest.name} has .* bytes instead"):
        load(tmp_path / "a", TREE)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(CheckpointError, match=r"is damaged .* delete that folder"):
        load(tmp_path / "a", TREE)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=f"no checkpoint at {tmp_path / 'a'}: "):
        load(tmp_path / "a", TREE)


@pytest.mark.parametrize(
    ("like", "sentence"),
    [
        ({"x": jnp.zeros(3)}, "'y'] is float64[2], expected absent"),
        ({"x": jnp.zeros(3), "z": jnp.zeros(2)}, "'z'] is missing, expected float64"),
        (
            {"x": jnp.zeros(4), "y": jnp.zeros(2)},
            "'x'] is float64[3], expected float64",
        ),
        ({"x": jnp.zeros((3, 1)), "y": jnp.zeros(2)}, "expected float64[3, 1]"),
        ({"x": jnp.zeros(3, "float32"), "y": jnp.zeros(2)}, "expected float32[3]"),
    ],
)
def test_another_structure_shape_or_dtype_is_refused_by_the_leaf(
    tmp_path, like, sentence
):
    save(tmp_path / "a", {"x": jnp.zeros(3), "y": jnp.zeros(2)})
    with pytest.raises(CheckpointError, match="by another configuration") as caught:
        load(tmp_path / "a", like)
    assert sentence in str(caught.value)


def test_exported_keys_are_the_paths_of_the_leaves(tmp_path):
    params = {
        "blocks": {3: {"kernel": jnp.arange(2.0)}},
        "head": jnp.ones(1, "float32"),
    }
    export_npz(tmp_path / "a.npz", Variables(params, {"mean": jnp.zeros(1)}))
    with np.load(tmp_path / "a.npz") as stored:
        assert set(stored) == {
            "params/blocks/3/kernel",
            "params/head",
            "stats/mean",
        }
        assert_trees_close(stored["params/blocks/3/kernel"], np.arange(2.0), rtol=0)
        assert stored["params/head"].dtype == "float32"
