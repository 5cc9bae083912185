"""Programs that edit maps of a generator, guard its prompts and search for words."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from described import Made, Program, key_shape

from unlearn_jax.diffusion.prompt_attacks import invert_words, search_prefix
from unlearn_jax.diffusion.schedule import cosine_schedule
from unlearn_jax.methods.editing.rece import rece
from unlearn_jax.methods.editing.safree import safree
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.methods.editing.spans import least_used
from unlearn_jax.methods.editing.state import edit_add, edit_remove, edit_start
from unlearn_jax.models.diffusion_transformer import diffusion_transformer
from unlearn_jax.types import Batch

D, OUT, ROWS = 16, 24, 5


def editing() -> Iterator[Program]:
    """Edits by every road, one more request and one less, a guard, two searches."""
    floats = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    maps = {"key": floats((D, OUT)), "value": floats((D, OUT))}
    rows = Batch(floats((ROWS, D)), floats((ROWS, 2 * OUT)), floats((ROWS,)))
    keys = floats((ROWS, D))

    def program(name: str, function: Callable[..., Any], *shapes: Any) -> Program:
        return Program(f"editing {name}", lambda: (function, shapes))

    for road in ("primal", "dual"):
        yield program(road, partial(edit, l2=0.1, road=road), maps, rows)

    def confined(maps: Any, rows: Batch, kept: Any) -> Any:
        return edit(maps, rows, l2=0.1, basis=least_used(kept, 3))

    yield program("least used", confined, maps, rows, keys)
    for name, change in (("request", edit_add), ("withdrawal", edit_remove)):

        def make(change: Any = change) -> Made:
            return change, (jax.eval_shape(partial(edit_start, l2=0.1), maps), rows)

        yield Program(f"editing {name}", make)
    yield program("rece", lambda *each: rece(*each).maps[-1], maps, keys, keys, keys)
    yield program("safree", safree, keys, keys, keys)

    def searched(search: Callable[..., Any]) -> Made:
        denoiser = diffusion_transformer((4, 4, 1), 7, depth=1, width=8, heads=2)
        variables = jax.eval_shape(denoiser.model.init, jax.random.key(0))
        schedule, tokens = cosine_schedule(10), jnp.array([[1, 2, 3, 4, 0, 0]])

        def go(key: Any, variables: Any, images: Any) -> Any:
            told = (denoiser, variables, schedule, images, tokens)
            return search(key, *told, rounds=2, steps=2)

        return go, (key_shape(), variables, floats((1, 4, 4, 1)))

    yield Program("editing search of a prefix", lambda: searched(search_prefix))
    yield Program("editing search of new words", lambda: searched(invert_words))
