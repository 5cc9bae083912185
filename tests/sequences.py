"""A tiny transformer, and what it computes written out in numpy, one row at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from tiny import quick_jit

from unlearn_jax.models import MODELS

WORDS, LENGTH = 11, 7
SIZES = {"depth": 2, "width": 8, "heads": 4, "groups": 2, "size": 6, "hidden": 10}


def build(**options):
    options = {**SIZES, "dtype": jnp.float64, **options}
    return MODELS["transformer"]((LENGTH,), WORDS, **options)


@functools.cache
def variables(tied=True, scan=False):
    """Drawn once, and moved off the ones that scales begin at."""
    model = build(tied=tied, scan=scan)
    drawn = quick_jit(model.init)(jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf * (1 + jnp.cos(17 * leaf) / 4), drawn)


def tokens(rows=3, length=LENGTH, seed=0):
    drawn = np.random.default_rng(seed).integers(0, WORDS, (rows, length))
    return drawn.astype(np.int32)


def written_out(params, row, base=10_000.0, epsilon=1e-5):
    """Logits (t, vocabulary) of one row without padding."""
    heads, groups, size = SIZES["heads"], SIZES["groups"], SIZES["size"]
    params = jax.tree.map(np.asarray, params)
    table = params["tokens"]["embedding"]
    x = table[row]
    turn = base ** (-2 * np.arange(size // 2) / size)
    angles = np.exp(1j * np.arange(len(row))[:, None] * turn)

    def normal(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale

    def turned(x):  # (t, size), as complex numbers
        half = (x[:, : size // 2] + 1j * x[:, size // 2 :]) * angles
        return np.concatenate((half.real, half.imag), -1)

    for number in range(SIZES["depth"]):
        block = params["blocks"][number]
        a = normal(x, block["before_attention"]["scale"])
        parts = {
            k: a @ block["attention"][k]["kernel"] for k in ("query", "key", "value")
        }
        mixed = []
        for head in range(heads):
            group = head // (heads // groups)
            q = turned(parts["query"][:, head * size : (head + 1) * size])
            k = turned(parts["key"][:, group * size : (group + 1) * size])
            v = parts["value"][:, group * size : (group + 1) * size]
            for s in range(len(row)):
                shares = np.exp(k[: s + 1] @ q[s] / np.sqrt(size))
                mixed.append((head, s, shares @ v[: s + 1] / shares.sum()))
        joined = np.zeros((len(row), heads * size))
        for head, s, value in mixed:
            joined[s, head * size : (head + 1) * size] = value
        x = x + joined @ block["attention"]["out"]["kernel"]
        m = normal(x, block["before_mlp"]["scale"])
        gate = m @ block["gate"]["kernel"]
        hidden = gate / (1 + np.exp(-gate)) * (m @ block["up"]["kernel"])
        x = x + hidden @ block["down"]["kernel"]
    last = normal(x, params["norm"]["scale"])
    return last @ (params["head"]["kernel"] if "head" in params else table.T)
