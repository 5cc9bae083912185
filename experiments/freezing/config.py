"""The generator, its users, and how long each may tune it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.canvas.config import adam
from experiments.frame.config import StudyConfig
from experiments.frame.rules import above, at_least, between
from unlearn_jax.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
    """The generator, its users, and how long each may tune it.

    Attributes:
        width: Numbers at each position of the generator, and of its captions.
        depth: Blocks.
        times: Steps from an image to noise.
        recipe: Of the generator's training.
        target: The digit that users should not learn, in both styles.
        innocent: The digit whose inverted form they should.
        frozen: Groups that a publisher freezes.
        user_steps: Of Adam, of each user.
        user_rate: Of that Adam.
        guard_steps: Of the simulated user.
        repeated: Images that are tuned on again and again, for memorisation.
        memory_steps: Of Adam, on these.
        budget: Choices that the search of MemControl may tune.
        samples: Images drawn after each tuning on the repeated ones.
        steps: Of sampling.
        seed: Draws everything.
    """

    width: int = 32
    depth: int = 2
    times: int = 200
    recipe: Recipe = field(default_factory=lambda: adam(40, 2e-3))
    target: int = 3
    innocent: int = 7
    frozen: int = 3
    user_steps: int = 60
    user_rate: float = 2e-3
    guard_steps: int = 300
    repeated: int = 8
    memory_steps: int = 150
    budget: int = 16
    samples: int = 32
    steps: int = 25
    seed: int = 0


RULES = (
    *at_least(1, "width", "depth", "times", "user_steps", "guard_steps"),
    *at_least(1, "memory_steps", "samples", "steps"),
    *at_least(2, "repeated"),
    *at_least(0, "seed"),
    *between(0, 9, "target", "innocent"),
    *between(1, 5, "frozen"),
    *between(1, 64, "budget"),
    *above(0, "user_rate"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale; the images are digits whatever the data's name."""
    del data
    small = Config()
    smoke = replace(
        small,
        scale="smoke",
        width=8,
        depth=1,
        times=20,
        recipe=adam(1, 2e-3),
        user_steps=1,
        guard_steps=2,
        memory_steps=1,
        samples=2,
        budget=4,
        steps=2,
    )
    paper = replace(small, scale="paper", user_steps=300, memory_steps=600, samples=100)
    return {"small": small, "smoke": smoke, "paper": paper}
