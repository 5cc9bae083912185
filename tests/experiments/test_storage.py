"""Full or damaged storage: one line that says what to do; nothing finished is lost."""

import shutil

import pytest
from commands import TINY, finish

from unlearn_jax.results.record import read_records


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compilations")


def values(results):
    (folder,) = (results / "compare").iterdir()
    rows = read_records(folder / "records.jsonl")
    return [r._replace(run="", value=None, oracle=None) for r in rows], [
        r.value for r in rows if r.unit != "s"
    ]


def one_line(err: str) -> str:
    (line,) = [text for text in err.splitlines() if text.startswith("error: ")]
    assert "Traceback" not in err
    return line


@pytest.mark.slow
def test_full_disk_then_damage_then_the_same_records(cache, tmp_path):
    words = [*TINY, "--methods", "ssd", "--results"]
    code, _, err = finish("compare", [*words, str(tmp_path / "calm")], cache)
    assert code == 0, err
    troubled = tmp_path / "troubled"

    # A disk that takes small files only: the pieces fit, the file of records does not.
    code, _, err = finish("compare", [*words, str(troubled)], cache, largest_file=60)
    assert code == 2, err
    assert "everything finished is kept" in one_line(err)
    (folder,) = (troubled / "compare").iterdir()
    pieces = sorted((folder / "pieces").glob("*.npz"))
    assert pieces, "nothing was kept"

    # A checkpoint that lost a file.
    checkpoint = folder / "models" / "original" / "0"
    (checkpoint / "manifest.ocdbt").unlink()
    code, _, err = finish("compare", [*words, str(troubled)], cache)
    assert code == 2
    assert str(checkpoint) in one_line(err)
    shutil.rmtree(checkpoint)

    # A piece that was cut short.
    piece = next(path for path in pieces if "ssd" in path.name)
    content = piece.read_bytes()
    piece.write_bytes(content[: len(content) // 2])
    code, _, err = finish("compare", [*words, str(troubled)], cache)
    assert code == 2
    assert str(piece) in one_line(err)
    piece.unlink()

    code, _, err = finish("compare", [*words, str(troubled)], cache)
    assert code == 0, err
    assert values(troubled) == values(tmp_path / "calm")
