import numpy as np
import pytest

from unlearn_jax.storage.arrays import pack_arrays, read_arrays, write_arrays


def test_arrays_come_back_bit_for_bit_and_numpy_opens_the_file(tmp_path):
    arrays = {"a/b": np.array([0.1, -0.0, np.nan]), "none": np.zeros((0, 2), np.int8)}
    write_arrays(tmp_path / "a.npz", arrays)
    for found in (read_arrays(tmp_path / "a.npz"), np.load(tmp_path / "a.npz")):
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert found[name].tobytes() == array.tobytes()
    found.close()


def test_damage_names_the_file(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(2))  # as older versions wrote it
    with pytest.raises(ValueError, match=r"a\.npz is damaged .*checksum.*delete it"):
        read_arrays(tmp_path / "a.npz")


def test_objects_are_refused():
    with pytest.raises(ValueError, match="Object arrays"):
        pack_arrays({"x": np.array([{}, 1], object)})
