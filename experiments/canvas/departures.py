"""How far a generator is from held-out images, from oracles, from the original."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from experiments.canvas.generators import ORACLE, ORIGINAL
from experiments.canvas.judges import Judges
from experiments.canvas.setting import Setting
from unlearn_jax.diffusion.drift import silent_drift
from unlearn_jax.evaluation.frechet import frechet
from unlearn_jax.results.rows import Row
from unlearn_jax.types import Batch, Variables


class Departures:
    """Distances of images, and of what is told without a prompt.

    Args:
        setting: Images and generator.
        judges: Whose features distances are of.
        models: The original and the oracles.
        own: (n,), which prompts are of what is erased.
        drawn: Name of a trained generator → its images for these prompts.
    """

    def __init__(
        self,
        setting: Setting[Any],
        judges: Judges,
        models: dict[str, Variables],
        own: np.ndarray,
        drawn: Callable[[str], np.ndarray],
    ):
        self.setting, self.models, self.own, self.drawn = setting, models, own, drawn
        self.features = judges.features
        test = setting.dataset.splits.test
        silent = np.zeros((len(test.inputs), setting.denoiser.tokens), np.int32)
        self._drift = silent_drift(
            jax.random.key(4000 + setting.config.seed),
            setting.denoiser,
            setting.schedule,
            Batch(np.asarray(test.inputs), silent, np.asarray(test.weights)),
        )

    def rows(
        self, name: str, images: np.ndarray, variables: Variables
    ) -> Iterator[Row]:
        """Of one generator and its images for the plain prompts."""
        at, original = {"method": name}, self.models[ORIGINAL]
        yield Row("frechet_held_out", self._held_out(images), "1", at)
        yield from self._from_oracles(name, images)
        change = np.abs(images - self.drawn(ORIGINAL))[~self.own]
        yield Row("same_seed_change", float(change.mean()), "1", at)
        drift = float(self._drift(original, variables))
        yield Row("silent_drift", drift, "1", at)
        yield Row("moved_bytes", moved_bytes(original, variables), "B", at)

    def _held_out(self, images: np.ndarray) -> float:
        wanted, dataset = self.setting.wanted, self.setting.dataset
        test = dataset.splits.test
        kept = wanted.numbers(test.targets, dataset.test_subclasses) != wanted.target
        ours = self.features(images[~self.own])
        return frechet(ours, self.features(test.inputs[kept]))

    def _from_oracles(self, name: str, images: np.ndarray) -> Iterator[Row]:
        oracles = [n for n in self.models if n.startswith(ORACLE) and n != name]
        for part, where in (("retained", ~self.own), ("forgotten", self.own)):
            if where.sum() < 2 or not oracles:
                continue
            ours = self.features(images[where])
            apart = [
                frechet(ours, self.features(self.drawn(o)[where])) for o in oracles
            ]
            told = {"method": name, "part": part}
            yield Row("frechet_oracle", float(np.mean(apart)), "1", told)


def moved_bytes(before: Variables, after: Variables) -> int:
    """Of the arrays that differ: what a copy must carry beside the original."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return sum(
        np.asarray(new).nbytes for old, new in pairs if not np.array_equal(old, new)
    )
