"""What a run is known by: the contents of what it reads, and names of its own."""

import jax
import numpy as np
import pytest
import tiny

from experiments import _pipeline, _train, compare
from experiments._inputs import input_digests
from experiments._train import Trained, train_members
from unlearn_jax.data.digits import digits
from unlearn_jax.storage.store import Store


def test_digests_follow_the_contents_of_data_and_files(tmp_path):
    dataset, (here, scores) = digits(), (tmp_path / "ids.npy", tmp_path / "s.npy")
    requests = (f"file:{here}", f"highest:5:{scores}", "class:3")
    np.save(here, np.arange(20))
    np.save(scores, np.arange(9.0))
    before = input_digests(dataset, requests)
    assert set(before) == {"data", *requests[:2]}
    assert input_digests(dataset, requests) == before
    np.save(here, np.arange(100, 120))
    after = input_digests(dataset, requests)
    assert {name for name in before if before[name] != after[name]} == {requests[0]}
    test = dataset.splits.test
    bent = test._replace(inputs=np.asarray(test.inputs) + 1e-9)
    splits = dataset.splits._replace(test=bent)
    assert input_digests(dataset._replace(splits=splits))["data"] != before["data"]


@pytest.mark.slow
def test_a_forget_file_corrected_before_the_restart_is_judged_by_its_own_oracles(
    tmp_path, monkeypatch
):
    words = [
        *"--scale smoke --data.limit 200 --recipe.epochs 1 --relearn-steps 1".split(),
        *"--methods ssd --seeds.train 1 --oracles 3 --results".split(),
        *(str(tmp_path / "results"), "--requests", f"file:{tmp_path / 'ids.npy'}"),
    ]

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_pipeline, "_method_records", stop)
    folders = []
    for indices in (np.arange(20), np.arange(100, 120), np.arange(20)):
        np.save(tmp_path / "ids.npy", indices)
        with pytest.raises(KeyboardInterrupt):
            compare.command(words)
        folders.append(len(list((tmp_path / "results" / "compare").iterdir())))
    assert folders == [1, 2, 2]


def test_models_of_different_words_never_share_a_folder(tmp_path, monkeypatch):
    learner, data = tiny.learner("mlp", epochs=1), tiny.examples()
    names = ["oracle file:a/b", "oracle file:a-b", "oracle file-a-b", "original"]
    model = learner.model.init(jax.random.key(0))
    numbers = {name: i + 1.0 for i, name in enumerate(names)}

    def trained(folder, name, *_):
        filled = jax.tree.map(lambda leaf: leaf * 0 + numbers[name], model)
        return Trained([filled], 1.0, 1.0, None)

    monkeypatch.setattr(_train, "_together", trained)
    keys = [jax.random.key(0)]
    with Store(tmp_path) as store:
        for name in names:
            train_members(store, name, keys, learner, data, "vmap")
        monkeypatch.setattr(_train, "_together", None)  # from here on from disk alone
        for name in names:
            (found,) = train_members(store, name, keys, learner, data, "vmap").members
            for leaf in jax.tree.leaves(found.params):
                np.testing.assert_array_equal(leaf, numbers[name])
