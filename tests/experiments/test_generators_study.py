"""The study of other generators: what it says of one that draws no numbers."""

import numpy as np
import pytest

from experiments.frame.bench import rows_of
from experiments.frame.study import Results
from experiments.generators import setting, show
from experiments.generators.config import presets
from experiments.generators.kinds import KINDS
from experiments.generators.measure import Gallery
from unlearn_jax.results.rows import Row, Rows
from unlearn_jax.results.run import new_run
from unlearn_jax.types import Variables

CONFIG = presets("any")["smoke"]
METHOD, NONE = "amnesia", "\N{EN DASH}"


class Patient:
    """Sees a digit in whatever it is shown, as that of its first pixel."""

    def sees(self, images):
        first = images[:, 0, 0, 0]
        return np.where(np.isfinite(first), np.round(first), -1).astype(int)

    def chances(self, images):
        return np.eye(10)[np.maximum(self.sees(images), 0)]

    def features(self, images):
        return images.reshape(len(images), -1)[:, :2]


def gallery(method, *, broken=()):
    """Generators whose images hold the digit that is asked, but for what a method does.

    Args:
        method: Of variables.
        broken: Names of models that draw NaN.
    """
    made = setting.build(CONFIG)
    own = KINDS["variational"](made)
    plain = np.zeros((len(own.labels), 2, 2, 1), np.float32)
    plain[:, :, 0, 0] = own.labels[:, None]
    plain[:, :, 1, 0] = np.random.default_rng(0).normal(size=(len(plain), 2))
    scene = own._replace(
        draw=lambda v: plain + v.params,
        loss=lambda v, data: 0.0 * v.params + 1.0,
        methods={METHOD: lambda key, variables: method(variables)},
    )
    models = {
        name: Variables(np.float32(np.nan if name in broken else 0.0), {})
        for name in ("original", "oracle 0")
    }
    return Gallery(made, scene, Patient(), models)


def numbers(piece):
    return {row.metric: row.value for row in rows_of(piece)}


def test_nan_is_not_counted_as_forgetting():
    drawn = gallery(lambda v: v._replace(params=v.params * np.float32(np.nan)))
    names = ("original", "oracle 0", METHOD)
    pieces = {name: drawn.judge(name) for name in names}
    told = {name: numbers(piece) for name, piece in pieces.items()}
    assert told["original"]["broken"] == 0
    assert told["original"]["unlearned"] == 0
    assert told[METHOD]["broken"] == 1
    assert not {"unlearned", "in_domain", "rejected", "entropy"} & set(told[METHOD])
    rows = [row for piece in pieces.values() for row in rows_of(piece)]
    at = {"method": "held-out images"}
    rows += [Row("judge_accuracy", 0.99, "1", at), Row("judge_rejects", 0.0, "1", at)]
    arrays = {f"grid/{name}": pieces[name].arrays["grid"] for name in names}
    arrays["shown"] = drawn.labels[drawn.columns]
    run = new_run("generators", "smoke", CONFIG, dataset="digits")
    (finding,) = show.show(CONFIG, Results(run, Rows(rows), arrays))
    assert finding.words[1].startswith(f"{METHOD}: 100.0% of its images are NaN")
    (line,) = [
        line
        for line in finding.tables[0].to_markdown().splitlines()
        if line.startswith(f"| {METHOD} ")
    ]
    assert [cell.strip() for cell in line.split("|")[2:6]] == [NONE] * 4
    assert line.split("|")[-2].strip() == NONE


@pytest.mark.parametrize("broken", ["original", "oracle 0"])
def test_a_broken_generator_is_no_reference(broken):
    drawn = gallery(lambda v: v._replace(params=np.float32(0)), broken=(broken,))
    found = numbers(drawn.judge(METHOD))
    assert found["unlearned"] == 0
    assert ("same_seed_change" in found) == (broken != "original")
    assert ("frechet_oracle" in found) == (broken == "original")
