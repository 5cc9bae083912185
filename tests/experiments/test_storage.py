"""Full or damaged storage: one line that says what to do; nothing finished is lost."""

import pytest
from commands import TINY, finish, over

from unlearn_jax.results.rows import read_rows


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compilations")


def values(results):
    folder = max((results / "compare").iterdir())
    rows = read_rows(folder / "rows.jsonl")
    return [(r.metric, dict(r.at), r.value) for r in rows if r.unit != "s"]


def one_line(err: str) -> str:
    (line,) = [text for text in err.splitlines() if text.startswith("error: ")]
    assert "Traceback" not in err
    return line


@pytest.mark.slow
def test_full_disk_then_damage_then_the_same_rows(cache, tmp_path):
    words = over(TINY, ["--methods", "ssd", "--results"])
    code, _, err = finish("compare", [*words, str(tmp_path / "calm")], cache)
    assert code == 0, err
    troubled = tmp_path / "troubled"

    # A disk that takes small files only: the pieces fit, the file of rows does not.
    code, _, err = finish("compare", [*words, str(troubled)], cache, largest_file=60)
    assert code == 2, err
    assert "everything finished is kept" in one_line(err)
    judged = sorted((troubled / "kept").glob("judged/*.npz"))
    models = sorted((troubled / "kept" / "models").glob("*/members-*/variables.npz"))
    assert judged, "nothing was kept"
    assert models, "no model was kept"

    # A model and a judgement that were cut short: told, and computed anew.
    for path in (judged[0], models[0]):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    code, _, err = finish("compare", [*words, str(troubled)], cache)
    assert code == 0, err
    assert str(judged[0]) in err
    assert models[0].parent.name in err
    assert values(troubled) == values(tmp_path / "calm")
