"""The study of authors: who is asked about, what is unlearned, and how it is judged."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results.fake_records import fake_run

from experiments import authors, tofu
from experiments.authors.build import _BYTES, PARTS, REFUSALS
from experiments.authors.config import presets
from experiments.authors.judge import Heard, _in_blocks
from experiments.authors.measure import _against, auc_of
from experiments.authors.show import _table
from experiments.frame.study import Results, configured
from unlearn_jax.data.tokens import END, byte_text
from unlearn_jax.models.transformer import Shape, of_shape
from unlearn_jax.results.rows import Row, Rows
from unlearn_jax.train.llama import Pretrained
from unlearn_jax.types import Batch

SMOKE = presets("any")["smoke"]


@pytest.fixture(scope="module")
def setting():
    return authors.build.build(dataclasses.replace(SMOKE, retain=4))


def texts(batch, kept):
    return {
        byte_text([int(t) for t in row if t >= 0])
        for row, weight in zip(np.asarray(batch.targets), kept, strict=True)
        if weight > 0
    }


def test_oracles_know_all_but_the_forgotten_and_a_request_holds_authors_alone(setting):
    request, oracle = setting.task.request, setting.oracle
    told = {
        part: {one.answer for one in questions}
        for part, questions in setting.questions.items()
    }
    assert tuple(told) == PARTS
    forgotten = texts(request.forget, request.forget.weights)
    known, held = (texts(b, b.weights) for b in (oracle, request.retain))
    assert forgotten == told["forget"]
    assert not forgotten & known
    assert told["real"] | told["world"] | told["retain"] <= known
    assert told["retain"] <= held
    assert not held & (told["real"] | told["world"] | told["holdout"])
    # Every second author in two wordings: 4 authors of 2 facts, and 2 of them again.
    assert np.sum(np.asarray(request.retain.weights)) == 4 * 2 + 2 * 2
    assert texts(setting.task.unseen, setting.task.unseen.weights) == told["holdout"]
    assert setting.task.costs.answers[0] == (*REFUSALS[0].encode(), END)


def test_blocks_give_what_the_whole_gives():
    rows = np.arange(21 * 3).reshape(21, 3)
    batch = Batch(jnp.asarray(rows), jnp.asarray(2 * rows), jnp.ones(21))
    found = _in_blocks(lambda x, y: (x + y, y[:, 0]), batch)
    np.testing.assert_array_equal(found[0], 3 * rows)
    np.testing.assert_array_equal(found[1], 2 * rows[:, 0])


def test_quality_and_leak_stand_beside_retrained_models():
    same = np.linspace(0.5, 1.5, 40)
    oracle = Heard({}, same, (np.arange(10.0), np.arange(10.0)))
    known = Heard({}, same - 2, (np.arange(10.0) + 20, np.arange(10.0)))
    assert auc_of(oracle) == 0.5
    assert auc_of(known) == 0.0
    rows = {row.metric: row.value for row in _against(known, [oracle, oracle], {})}
    assert rows["quality_distance"] == 1
    assert rows["forget_quality"] == rows["quality_floor"] < 1e-20
    assert rows["privacy_leak"] == -100
    (failed,) = _against(known._replace(ratios=same * np.nan), [oracle], {})
    assert failed.value is None
    assert "destroyed" in failed.failure


def test_published_weights_and_tofu_go_together(tmp_path):
    with pytest.raises(ValueError, match="give the other one too"):
        authors.build.build(dataclasses.replace(SMOKE, tofu=tmp_path))
    for scale, preset in tofu.config.presets("any").items():
        assert configured(tofu.STUDY, ["--scale", scale]) == preset
        with pytest.raises(ValueError, match="give --weights and --tofu"):
            tofu.config.build(preset)


def tiny_tofu(folder):
    """Six questions of each kind and nine to retain, three of them judged."""

    def write(name, count, **more):
        lines = [
            json.dumps({"question": f"{name} {i}?", "answer": f"{i}."} | more)
            for i in range(count)
        ]
        (folder / f"{name}.json").write_text("\n".join(lines))

    wrong = {"perturbed_answer": ["no", "not"]}
    for name in ("forget05_perturbed", "real_authors_perturbed"):
        write(name, 6, **wrong)
    write("world_facts_perturbed", 6, **wrong)
    write("retain95", 9)
    kept = (folder / "retain95.json").read_text().splitlines()
    told = [json.dumps(json.loads(line) | wrong) for line in kept[5:8]]
    (folder / "retain_perturbed.json").write_text("\n".join(told))


def test_what_is_judged_of_tofu_is_trained_on_however_little_is_kept(tmp_path):
    tiny_tofu(tmp_path)
    preset = tofu.config.presets("any")["smoke"]
    config = dataclasses.replace(preset, split="forget05", asked=2, judged=2, kept=4)
    parts, trained = authors.build._read(tmp_path, config)
    assert len(parts["forget"]) == len(trained["forget"]) == 2
    asked = [question for question, _ in trained["retain"]]
    assert asked == [f"retain95 {i}?" for i in (5, 6, 0, 1)]
    everything = dataclasses.replace(config, kept=0)
    assert len(authors.build._read(tmp_path, everything)[1]["retain"]) == 9


@pytest.mark.parametrize("adapters", [0, 2])
def test_a_tokeniser_that_the_model_does_not_fit_is_told_before_training(
    tmp_path, monkeypatch, adapters
):
    def model(path, *, context, **options):
        made = Shape(
            100, context, depth=1, width=8, heads=2, groups=1, size=4, hidden=8
        )
        model = of_shape(made)
        return Pretrained(model, model.init(jax.random.key(0)), made)

    tiny_tofu(tmp_path)
    monkeypatch.setattr(authors.build, "read_tokenizer", lambda path: _BYTES)
    monkeypatch.setattr(authors.build, "read_llama", model)
    config = dataclasses.replace(
        tofu.config.presets("any")["smoke"],
        weights=tmp_path / "model.gguf",
        tofu=tmp_path,
        split="forget05",
        adapters=adapters,
        occurring=False,
    )
    with pytest.raises(ValueError, match="has 257 tokens and the model 100"):
        tofu.config.build(config)
    cut = dataclasses.replace(config, occurring=True)
    with pytest.raises(ValueError, match="expected at least one, from 0 to 99"):
        tofu.config.build(cut)


def test_the_floor_of_several_oracles_is_told():
    rows = [
        Row("quality_floor", 1e-5, "1", {"method": "oracle", "seed": s}) for s in (0, 1)
    ]
    table = _table(SMOKE, Results(fake_run(), Rows(rows), {}), "budget", [])
    assert "1e-05 at D = 1" in " ".join(table.footnotes)
