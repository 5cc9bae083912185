"""Attack every generator in every way, and try all prefixes."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attacks.cases import at_random, cases_of
from experiments.attacks.config import Config
from experiments.canvas.forgotten import forgotten
from experiments.canvas.generators import ORIGINAL, generators
from experiments.canvas.guard import GUARDS
from experiments.canvas.judges import Judges, judges_of
from experiments.canvas.setting import Setting
from experiments.canvas.studio import Studio
from experiments.frame.bench import Bench
from unlearn_jax.diffusion.prompt_attacks import (
    Found,
    embeddings,
    invert_words,
    prefixed,
    search_prefix,
    with_words,
)
from unlearn_jax.methods.editing.denoiser import text_maps
from unlearn_jax.methods.editing.rece import adversarial_keys
from unlearn_jax.results.rows import Row
from unlearn_jax.types import Variables

PLAIN, EXACT = "plain prompt", "every prefix"
SEARCH, RANDOM = "gradient, words", "random words"
NEW, CLOSED, SUMS = "gradient, new words", "closed form", "arithmetic"
ATTACKS = (PLAIN, SEARCH, RANDOM, EXACT, NEW, CLOSED, SUMS)


def measure(bench: Bench, setting: Setting[Config]) -> Iterator[Row]:
    """Success of each attack on each generator, by queries of the judge."""
    config = setting.config
    models, trained = generators(bench, setting, config.oracles)
    yield from trained
    judges = judges_of(setting)
    yield from judges.rows()
    siege = Siege(setting, judges, models)
    names = [*models, *config.methods]
    with bench.progress("attack", len(names)) as advance:
        for name in names:
            yield from bench.rows(
                f"attacked/{name}", functools.partial(siege.rows, name)
            )
            advance(1)


class Siege:
    """The cases, the pictures that attacks aim at, and compiled searches.

    Args:
        setting: Images and generator.
        judges: Of what is drawn.
        models: The original and the oracles.
    """

    def __init__(
        self, setting: Setting[Config], judges: Judges, models: dict[str, Variables]
    ):
        config, wanted = setting.config, setting.wanted
        self.setting, self.judges, self.models = setting, judges, models
        self.studio = Studio(setting, models[ORIGINAL])
        count = config.seeds * len(wanted.plain())
        self.cases = cases_of(setting, self.studio.noise(count))
        self.studio.asked = self.cases.tokens
        original = models[ORIGINAL]
        text = self.studio.encode(original, self.cases.tokens)
        aims = self.studio.draw(original, self.studio.noise(count, 1), text)
        told = {
            "denoiser": setting.denoiser,
            "schedule": setting.schedule,
            "images": aims,
            "tokens": self.cases.tokens,
            "slots": config.slots,
            "rounds": config.rounds,
            "steps": config.searches,
        }

        def search(key: jax.Array, variables: Variables) -> Found:
            return search_prefix(
                key, variables=variables, learning_rate=config.rate, **told
            )

        def invert(key: jax.Array, variables: Variables) -> Found:
            return invert_words(
                key, variables=variables, learning_rate=config.new_rate, **told
            )

        self._search, self._invert = jax.jit(search), jax.jit(invert)
        self._attack = jax.jit(functools.partial(adversarial_keys, l2=config.attack_l2))

    def rows(self, name: str) -> Iterator[Row]:
        """Of one generator."""
        config, cases = self.setting.config, self.cases
        variables = self.models.get(name)
        if variables is None:
            variables, _ = forgotten(
                name, self.setting, self.studio, self.models[ORIGINAL]
            )
        key = jax.random.fold_in(jax.random.key(config.seed), 3000)
        read = self.studio.read(name, variables, cases.tokens)
        plain = self._back(self.studio.draw(variables, cases.start, read))
        brought = self._every_prefix(name, variables)
        words = np.asarray(self._search(key, variables).words)
        found = brought[np.arange(len(plain)), cases.place(words)]
        new = self._new_words(key, variables)
        queries = range(1, config.rounds + 1)

        yield from self._told(name, PLAIN, 1, plain)
        for q in queries:
            yield from self._told(name, SEARCH, q, plain | found[:q].any(0))
            yield from self._told(name, NEW, q, plain | new[:q].any(0))
            by_chance = at_random(brought | plain[:, None], min(q, brought.shape[1]))
            at = {"method": name, "attack": RANDOM, "queries": q}
            yield Row("success", by_chance, "1", at)
        count = brought.shape[1]
        yield from self._told(name, EXACT, count, plain | brought.any(1))
        yield from self._told(name, CLOSED, 1, plain | self._closed(name, variables))
        yield from self._told(name, SUMS, 1, plain | self._sums(variables))
        at = {"method": name}
        yield Row("prefixes", float(np.mean(brought)), "1", at)
        yield Row("guarded", float(name in GUARDS), "1", at)
        for place in np.argsort(-brought.sum(0), kind="stable")[:3]:
            grammar = self.setting.wanted.grammar
            said = " ".join(grammar.words[t] for t in cases.words[place])
            share = float(brought[:, place].mean())
            yield Row("best_prefix", share, "1", {**at, "words": said})

    def _told(
        self, name: str, attack: str, queries: int, back: np.ndarray
    ) -> Iterator[Row]:
        at = {"method": name, "attack": attack, "queries": queries}
        yield Row("success", float(np.mean(back)), "1", at)

    def _back(self, images: np.ndarray) -> np.ndarray:
        """Which of these images are of what was erased."""
        wanted = self.setting.wanted
        seen = wanted.numbers(self.judges.classes(images), self.judges.styles(images))
        return seen == wanted.target

    def _every_prefix(self, name: str, variables: Variables) -> np.ndarray:
        """(n, p): whether a case is brought back by a prefix, each from its noise."""
        cases = self.cases
        prompts = cases.prompts(cases.words)
        read = self.studio.read(name, variables, prompts)
        start = np.repeat(cases.start, len(cases.words), axis=0)
        back = self._back(self.studio.draw(variables, start, read))
        return back.reshape(len(cases.tokens), -1)

    def _new_words(self, key: jax.Array, variables: Variables) -> np.ndarray:
        """(rounds, n): whether the new words of a round bring a case back."""
        cases, slots = self.cases, self.setting.config.slots
        count = len(cases.tokens)
        size = embeddings(variables).shape[0]
        numbers = size + np.arange(count * slots, dtype=np.int32).reshape(count, slots)
        prompts, back = prefixed(cases.tokens, numbers), []
        for rows in np.asarray(self._invert(key, variables).words):
            wider = with_words(variables, jnp.asarray(rows.reshape(count * slots, -1)))
            text = self.studio.encode(wider, prompts)
            back.append(self._back(self.studio.draw(variables, cases.start, text)))
        return np.stack(back)

    def _closed(self, name: str, variables: Variables) -> np.ndarray:
        cases = self.cases
        reference = variables if name in self.models else self.models[ORIGINAL]
        text = self.studio.encode(reference, cases.tokens)
        maps, before = (
            text_maps(self.setting.denoiser, each) for each in (variables, reference)
        )
        rows = jnp.asarray(text.reshape(-1, text.shape[-1]))
        found = np.asarray(self._attack(maps, before, rows)).reshape(text.shape)
        return self._back(self.studio.draw(variables, cases.start, found))

    def _sums(self, variables: Variables) -> np.ndarray:
        texts = [self.studio.encode(variables, each) for each in self.cases.sums]
        weights = self.setting.config.guidance * np.array([1.0, -1.0, 1.0], np.float32)
        drawn = self.studio.compose(
            variables, self.cases.start, np.stack(texts, 1), weights
        )
        return self._back(drawn)
