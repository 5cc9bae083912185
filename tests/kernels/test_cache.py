import pytest

from unlearn_kernels.cache import TOLD, UNTOLD, second_cache_bytes


def told(folder, *caches):
    for number, (level, size) in enumerate(caches):
        cache = folder / f"index{number}"
        cache.mkdir()
        (cache / "level").write_text(f"{level}\n")
        (cache / "size").write_text(f"{size}\n")
    return folder


@pytest.mark.parametrize(
    ("size", "expected"), [("1024K", 2**20), ("2M", 2**21), ("", UNTOLD)]
)
def test_the_second_level_is_read(tmp_path, size, expected):
    folder = told(tmp_path, (1, "48K"), (1, "32K"), (2, size), (3, "32768K"))
    assert second_cache_bytes(folder) == expected


def test_a_system_that_does_not_tell_has_the_usual_one(tmp_path):
    (tmp_path / "index0").mkdir()
    assert second_cache_bytes(tmp_path) == UNTOLD
    assert second_cache_bytes(tmp_path / "nothing") == UNTOLD


def test_that_of_this_machine_is_plausible():
    assert 2**17 <= second_cache_bytes(TOLD) <= 2**26
