"""Drawing, with any generator and any text, each image from a seed of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.canvas.editors import Concept
from experiments.canvas.guard import GUARDS, Read, unguarded
from experiments.canvas.setting import Setting
from unlearn_jax import tree
from unlearn_jax.diffusion.sampler import guided, sample
from unlearn_jax.types import Array, Variables

_BATCH = 100
"""Images drawn at once."""


class Studio:
    """Programs that draw, compiled once for all generators.

    Args:
        setting: Generator, schedule, and how images are sampled.
        original: Before anything was forgotten; what a guard with gains weighs against.

    Attributes:
        asked: (n, t), the prompts that are judged: what no guard may learn from.
        learned: By its row, what a guard has learned.
    """

    def __init__(self, setting: Setting[Any], original: Variables | None = None):
        self.setting, self.original = setting, original
        self.asked = np.zeros((0, setting.denoiser.tokens), np.int32)
        self.learned: dict[str, Any] = {}
        self._draw = jax.jit(self._program)
        self._weigh = jax.jit(self._weighed)
        self._compose = jax.jit(self._composition)
        self._encode = jax.jit(setting.denoiser.encode)
        self._guards = {
            name: jax.jit(
                lambda v, tokens, learned, guard=guard: guard(
                    self.concept(v), tokens, learned
                )
            )
            for name, guard in GUARDS.items()
        }

    def concept(self, variables: Variables) -> Concept:
        """What is erased, from this generator."""
        return Concept(self.setting.denoiser, variables, self.setting.wanted)

    def _program(self, variables: Variables, start: Any, read: Read) -> Array:
        setting, config = self.setting, self.setting.config
        empty = self._empty(variables)

        def predict(image: Array, time: Array) -> Array:
            gone = (setting.schedule.steps - time) * config.steps
            early = gone < read.steps * setting.schedule.steps
            words = jnp.where(early[:, None, None], read.first, read.later)
            told = guided(setting.denoiser, variables, words, empty, config.guidance)
            return told(image, time)

        return self._sampled(predict, start)

    def _weighed(
        self, variables: Variables, original: Variables, start: Any, read: Read
    ) -> Array:
        """Every image from weights of its own: original + gain (variables − original).

        The gain is that of the prompt, in the null prompt's prediction too.
        """

        def one(gain: Array, start: Array, read: Read) -> Array:
            own = tree.axpy(gain, tree.subtract(variables, original), original)
            read = jax.tree.map(lambda leaf: leaf[None], read)
            return self._program(own, start[None], read)[0]

        return jax.vmap(one)(read.gains, start, read._replace(gains=None))

    def _composition(self, variables: Variables, start: Any, texts: Any, weights: Any):
        """ε(empty) + Σ w (ε(text) − ε(empty)) in each step."""
        denoiser, empty = self.setting.denoiser, self._empty(variables)

        def predict(image: Array, time: Array) -> Array:
            none = jnp.broadcast_to(empty, texts[:, 0].shape)
            without = denoiser.denoise(variables, image, time, none)
            total = without
            for number in range(texts.shape[1]):
                told = denoiser.denoise(variables, image, time, texts[:, number])
                total = total + weights[number] * (told - without)
            return total.reshape(image.shape)

        return self._sampled(predict, start)

    def _empty(self, variables: Variables) -> Array:
        null = jnp.zeros((1, self.setting.denoiser.tokens), jnp.int32)
        return self.setting.denoiser.encode(variables, null)

    def _sampled(self, predict: Any, start: Any) -> Array:
        key = jax.random.key(0)  # not read: DDIM draws nothing on the way
        steps = self.setting.config.steps
        return sample(key, predict, self.setting.schedule, start, steps=steps)

    def noise(self, count: int, number: int = 0) -> np.ndarray:
        """What images are drawn from: ``count`` seeds, others for another number."""
        key = jax.random.fold_in(
            jax.random.key(2000 + self.setting.config.seed), number
        )
        shape = (count, *self.setting.denoiser.image_shape)
        return np.asarray(jax.random.normal(key, shape))

    def draw(self, variables: Variables, start: np.ndarray, read: Any) -> np.ndarray:
        """Images (n, h, w, c).

        Args:
            variables: Of the generator.
            start: (n, h, w, c), from :meth:`noise`.
            read: Embeddings (n, t, d), or what a guard makes of prompts.
        """
        read = read if isinstance(read, Read) else unguarded(read)
        count, drawn = len(start), []
        for first in range(0, count, _BATCH):
            rows = np.arange(first, first + _BATCH) % count
            part = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], read)
            drawn.append(np.asarray(self._images(variables, start[rows], part)))
        return np.concatenate(drawn)[:count]

    def _images(self, variables: Variables, start: np.ndarray, read: Read) -> Array:
        if read.gains is None:
            return self._draw(variables, start, read)
        if self.original is None:
            raise ValueError("a guard with gains needs the original: Studio(original=)")
        return self._weigh(variables, self.original, start, read)

    def compose(
        self, variables: Variables, start: np.ndarray, texts: Any, weights: Any
    ) -> np.ndarray:
        """Images of directions of several texts, added up.

        Args:
            variables: Of the generator.
            start: (n, h, w, c).
            texts: (n, m, t, d) embeddings.
            weights: (m,), of each direction; guidance is not put on top.
        """
        return np.asarray(self._compose(variables, start, texts, weights))

    def read(self, name: str, variables: Variables, tokens: np.ndarray) -> Read:
        """What a generator's sampler reads of prompts, through its guard if it has one.

        Args:
            name: Of the editor.
            variables: Of the generator.
            tokens: (n, t).
        """
        if name in self._guards:
            known = self.learned.get(name)
            return self._guards[name](variables, jnp.asarray(tokens), known)
        return unguarded(self.encode(variables, tokens))

    def encode(self, variables: Variables, tokens: np.ndarray) -> np.ndarray:
        """Embeddings of prompts, (n, t, d)."""
        return np.asarray(self._encode(variables, jnp.asarray(tokens)))
