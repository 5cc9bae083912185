"""What a run is known by: the contents of what it reads, and of its source."""

import numpy as np
import pytest

from experiments import compare
from experiments.frame import study
from unlearn_jax.data.digits import digits
from unlearn_jax.storage.source import source_digest

WORDS = (
    "--scale smoke --data.limit 200 --recipe.epochs 1 --relearn-steps 1 "
    "--methods ssd --seeds.train 1 --oracles 3"
).split()


def test_the_digest_follows_the_contents_of_the_data():
    dataset = digits()
    before = study.data_digest(dataset)
    assert study.data_digest(digits()) == before
    test = dataset.splits.test
    bent = test._replace(inputs=np.asarray(test.inputs) + 1e-9)
    splits = dataset.splits._replace(test=bent)
    assert study.data_digest(dataset._replace(splits=splits)) != before


def test_the_digest_of_source_follows_its_contents(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def f(): return 1\n")
    before = source_digest(("json",), (file,))
    assert source_digest(("json", "csv"), (file,)) != before
    source_digest.cache_clear()
    file.write_text("def f(): return 2\n")
    assert source_digest(("json",), (file,)) != before


@pytest.mark.slow
def test_a_forget_file_corrected_before_the_restart_is_judged_by_its_own_oracles(
    tmp_path, monkeypatch
):
    words = [*WORDS, "--results", str(tmp_path / "results")]
    words += ["--requests", f"file:{tmp_path / 'ids.npy'}"]

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare.measure, "_references", stop)
    folders = []
    for indices in (np.arange(20), np.arange(100, 120), np.arange(20)):
        np.save(tmp_path / "ids.npy", indices)
        with pytest.raises(KeyboardInterrupt):
            study.run(compare.STUDY, words)
        folders.append(len(list((tmp_path / "results" / "compare").iterdir())))
    assert folders == [1, 2, 2]
    # Originals once, and oracles for each of the two sets.
    assert len(list((tmp_path / "results" / "kept" / "models").iterdir())) == 3
