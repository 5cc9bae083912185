"""Who is tuned: rows of the table that take gradients, and what each may read."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.canvas.request import Wanted
from unlearn_jax.data.canvas import Canvas
from unlearn_jax.data.captions import END
from unlearn_jax.evaluation.cost import Cost, measured
from unlearn_jax.methods.editing.denoiser import prompt_keys, text_maps, with_text_maps
from unlearn_jax.methods.editing.trce import first_end, trce
from unlearn_jax.methods.erasing.adapters import with_adapters
from unlearn_jax.methods.erasing.adversarial import adv_unlearn
from unlearn_jax.methods.erasing.adversarial_closed import adv_closed, adv_closed_newton
from unlearn_jax.methods.erasing.all_but_one import all_but_one
from unlearn_jax.methods.erasing.amnesia import amnesia
from unlearn_jax.methods.erasing.ascent import few_shot, few_shot_natural
from unlearn_jax.methods.erasing.correction import doco
from unlearn_jax.methods.erasing.esd import esd
from unlearn_jax.methods.erasing.images import Images
from unlearn_jax.methods.erasing.newton import Solve
from unlearn_jax.methods.erasing.newton_prompts import (
    AMNESIA,
    all_but_one_newton,
    amnesia_newton,
    esd_newton,
)
from unlearn_jax.methods.erasing.rollouts import Generator, Prompts
from unlearn_jax.methods.erasing.salun import salun
from unlearn_jax.methods.erasing.salun_newton import salun_newton
from unlearn_jax.methods.erasing.spm import spm, spm_newton
from unlearn_jax.methods.erasing.steering import trce_steering
from unlearn_jax.types import Batch, PRNGKey, Variables


class Scene(NamedTuple):
    """Description: all that a tuner may read beside the original.

    Attributes:
        generator: Draws under the guidance that ESD samples with.
        prompts: Plain ones.
        images: Of the training set; only SalUn and few-shot erasing read them.
    """

    generator: Generator
    prompts: Prompts
    images: Images


def scene_of(wanted: Wanted, canvas: Canvas, generator: Generator) -> Scene:
    """What a request says, in the terms of the tuners."""
    prompts = Prompts(wanted.plain(), wanted.anchors(), wanted.others())
    train, text, dataset = canvas.dataset.splits.train, canvas.captions, canvas.dataset
    own = wanted.numbers(train.targets, dataset.subclasses) == wanted.target
    inputs, weights = np.asarray(train.inputs), np.asarray(train.weights)
    forget, retain = (
        Batch(inputs[rows], text[rows], weights[rows]) for rows in (own, ~own)
    )
    instead = _renamed(wanted)[text[own]]
    return Scene(generator, prompts, Images(forget, instead, retain))


def _renamed(wanted: Wanted) -> np.ndarray:
    """Of each token, the one that an anchor's caption has in its place."""
    grammar = wanted.grammar
    groups, own, other = (
        (grammar.styles, wanted.style, wanted.style_anchor)
        if wanted.kind == "style"
        else (grammar.classes, wanted.label, wanted.anchor)
    )
    tokens = {word: token for token, word in enumerate(grammar.words)}
    table = np.arange(len(tokens), dtype=np.int32)
    for number, word in enumerate(groups[own]):
        names = groups[other]
        table[tokens[word]] = tokens[names[number % len(names)]]
    return table


Tuner = Callable[[PRNGKey, Scene, Variables], Variables]


def _prompted(method: Callable[..., Any], **options: Any) -> Tuner:
    def tuned(key: PRNGKey, scene: Scene, variables: Variables) -> Variables:
        return method(key, scene.generator, variables, scene.prompts, **options)

    return tuned


def _amnesia(**options: Any) -> Tuner:
    """Of cross-attention alone, so that rows with one curvature and another compare."""
    return _prompted(amnesia, part="x", **options)


def _shown(method: Callable[..., Any], **options: Any) -> Tuner:
    def tuned(key: PRNGKey, scene: Scene, variables: Variables) -> Variables:
        return method(key, scene.generator, variables, scene.images, **options)

    return tuned


def _spm(method: Callable[..., Any] = spm, **options: Any) -> Tuner:
    """With gain 1, what an adapter does where nothing weighs it by prompt.

    What weighs it is a guard ("spm: transport").
    """

    def tuned(key: PRNGKey, scene: Scene, variables: Variables) -> Variables:
        generator, prompts = scene.generator, scene.prompts
        adapter = method(key, generator, variables, prompts, **options)
        return with_adapters(variables, [adapter])

    return tuned


_STAGE_ONE_L2 = 1e-4


def _both_stages(**options: Any) -> Tuner:
    """TRCE: first ends are edited, all rows of others kept; then ways are steered.

    Four plain prompts leave the sums of float32 nearly singular at the default λ.
    """

    def tuned(key: PRNGKey, scene: Scene, variables: Variables) -> Variables:
        denoiser, prompts = scene.generator.denoiser, scene.prompts
        malicious, safe = (
            prompt_keys(denoiser, variables, each, first_end(each, END)[:, None])
            for each in (prompts.forget, prompts.anchor)
        )
        kept = prompt_keys(denoiser, variables, prompts.retain)
        maps = text_maps(denoiser, variables)
        maps = trce(maps, malicious, safe, kept, l2=_STAGE_ONE_L2)
        edited = with_text_maps(denoiser, variables, maps)
        given = key, scene.generator, edited, variables, prompts
        return trce_steering(*given, **options)

    return tuned


FIVE = Solve(steps=5)
"""λ is a power of ten that was chosen on another request, five and six, in all rows."""
SOLVED = Solve(steps=5, products=5)

TUNERS: Mapping[str, Tuner] = {
    "esd-x": _prompted(esd, learning_rate=1e-4),
    "esd-x: on policy": _prompted(esd, learning_rate=1e-4, on_policy=True),
    "esd-x: retaining": _prompted(esd, retain_weight=5.0),
    "esd-u": _prompted(esd, part="u", learning_rate=1e-4),
    "esd-x-strict": _prompted(esd, part="strict", learning_rate=1e-4),
    "esd-x: one ekfac step": _prompted(esd_newton),
    "esd-x: five ekfac steps": _prompted(esd_newton, solve=FIVE),
    "esd-x: five diagonal steps": _prompted(
        esd_newton, solve=FIVE._replace(kind="diagonal")
    ),
    "esd-x: five low-rank steps": _prompted(
        esd_newton, solve=FIVE._replace(kind="low_rank")
    ),
    "esd-x: gauss-newton": _prompted(esd_newton, solve=Solve(steps=3, products=10)),
    "salun": _shown(salun),
    "salun: second order": _shown(salun, saliency="second_order"),
    "salun: random mask": _shown(salun, saliency="random"),
    "salun: no mask": _shown(salun, saliency="none"),
    "salun: five ekfac solves": _shown(
        salun_newton, solve=SOLVED._replace(products=10)
    ),
    "amnesia": _amnesia(),
    "amnesia: replay alone": _amnesia(weight=0.0),
    "amnesia: diagonal alone": _amnesia(replay_weight=0.0, weight=1e4),
    "amnesia: ekfac alone": _amnesia(replay_weight=0.0, weight=1e4, kind="ekfac"),
    "amnesia: nothing held": _amnesia(weight=0.0, replay_weight=0.0),
    "amnesia: low rank alone": _amnesia(replay_weight=0.0, weight=1e4, kind="low_rank"),
    "amnesia: five ekfac steps": _prompted(
        amnesia_newton, part="x", solve=AMNESIA._replace(steps=5)
    ),
    "amnesia: five low-rank steps": _prompted(
        amnesia_newton,
        part="x",
        solve=AMNESIA._replace(steps=5, kind="low_rank", weight=1e4),
    ),
    "amnesia: gauss-newton": _prompted(
        amnesia_newton, part="x", solve=AMNESIA._replace(steps=3, products=10)
    ),
    "all but one": _prompted(all_but_one),
    "all but one: five ekfac solves": _prompted(all_but_one_newton, solve=SOLVED),
    "spm: merged": _spm(),
    "spm: transport": _spm(),
    "spm: dense gauss-newton": _spm(spm_newton),
    "spm: five solves": _spm(spm_newton, solve=Solve(steps=5, products=20, weight=0.1)),
    "doco": _prompted(doco),
    "doco: released surgery": _prompted(doco, surgery="published"),
    "doco: no surgery": _prompted(doco, surgery="none"),
    "advunlearn": _prompted(adv_unlearn),
    "advunlearn: closed form": _prompted(adv_closed),
    "advunlearn: five ekfac steps": _prompted(adv_closed_newton, solve=FIVE),
    "few-shot": _shown(few_shot),
    "few-shot: natural gradient": _shown(few_shot_natural),
    "trce: both stages": _both_stages(),
    "trce: both stages, released": _both_stages(as_published=True),
}
"""Name of a row -> the generator after tuning; traced."""


def tuned_by(
    name: str, key: PRNGKey, scene: Scene, original: Variables
) -> tuple[Variables, Cost]:
    """The generator after a tuner, and the cost of its compiled program."""

    def tuned(key: PRNGKey, variables: Variables, images: Images) -> Variables:
        return TUNERS[name](key, scene._replace(images=images), variables)

    return measured(tuned, key, original, scene.images)
