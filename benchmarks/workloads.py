"""The nets and data that curvature is timed on, as plain functions of parameters."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.models import MODELS
from unlearn_jax.train.loss import cross_entropy, sequence_nll
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.types import Batch
from unlearn_kernels.convolution import conv2d

WIDTHS = (784, 512, 512, 10)
CHANNELS = (3, 32, 64, 128)
STRIDES = (1, 2, 2)
VOCABULARY, MODEL_WIDTH, HEADS, BLOCKS, HIDDEN, TOKENS = 256, 128, 4, 2, 512, 64


class Workload(NamedTuple):
    """A net, where it stands, and examples."""

    name: str
    objective: Objective
    params: Any
    batch: Batch


def mlp(count: int = 1024) -> Workload:
    """784-512-512-10, ReLU, 669,706 parameters."""
    draw = np.random.default_rng(0)
    params: dict[str, Any] = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(WIDTHS)):
        params[f"w{layer}"] = normal(draw, fan_in, fan_out, scale=fan_in**-0.5)
        params[f"b{layer}"] = jnp.zeros(fan_out)

    def predict(p: Any, x: Any) -> Any:
        for layer in range(3):
            x = x @ p[f"w{layer}"] + p[f"b{layer}"][None]
            x = jax.nn.relu(x) if layer < 2 else x
        return x

    batch = classes(draw, normal(draw, count, WIDTHS[0]))
    return Workload("mlp", Objective(predict, cross_entropy), params, batch)


def cnn(count: int = 1024, implementation: str | None = None) -> Workload:
    """Three 3×3 convolutions over 32×32×3, mean, linear; 94,538 parameters.

    Args:
        count: Examples.
        implementation: Of the convolution; "reference" is XLA's own.
    """
    draw = np.random.default_rng(0)
    params: dict[str, Any] = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(CHANNELS)):
        scale = (9 * fan_in) ** -0.5
        params[f"k{layer}"] = normal(draw, 3, 3, fan_in, fan_out, scale=scale)
        params[f"b{layer}"] = jnp.zeros(fan_out)
    params["w"] = normal(draw, CHANNELS[-1], 10, scale=CHANNELS[-1] ** -0.5)
    params["c"] = jnp.zeros(10)

    def predict(p: Any, x: Any) -> Any:
        for layer, step in enumerate(STRIDES):
            options: Any = {"strides": (step, step), "implementation": implementation}
            x = conv2d(x, p[f"k{layer}"], **options)
            x = jax.nn.relu(x + p[f"b{layer}"][None, None, None])
        return jnp.mean(x, axis=(1, 2)) @ p["w"] + p["c"][None]

    batch = classes(draw, normal(draw, count, 32, 32, 3))
    name = "cnn" if implementation is None else f"cnn ({implementation})"
    return Workload(name, Objective(predict, cross_entropy), params, batch)


def language_model(count: int = 1024) -> Workload:
    """Two pre-norm blocks, width 128, 64 byte tokens; 462,336 parameters."""
    draw = np.random.default_rng(0)
    d, h = MODEL_WIDTH, HIDDEN
    params: dict[str, Any] = {
        "embed": normal(draw, VOCABULARY, d, scale=0.5),
        "norm": norm(),
        "out": normal(draw, d, VOCABULARY, scale=d**-0.5),
    }
    for block in range(BLOCKS):
        params[f"block{block}"] = {
            "norm1": norm(),
            "norm2": norm(),
            "qkv": dense(draw, d, 3 * d),
            "mix": dense(draw, d, d),
            "up": dense(draw, d, h),
            "down": dense(draw, h, d),
        }
    mask = np.tril(np.ones((TOKENS, TOKENS), bool))
    angle = np.arange(TOKENS)[:, None] / 10_000 ** (np.arange(d // 2) / (d // 2))
    places = np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)

    def attend(p: Any, x: Any) -> Any:
        n, t = x.shape[:2]
        split = linear(p["qkv"], x).reshape(n, t, 3, HEADS, d // HEADS)
        q, k, v = split[:, :, 0], split[:, :, 1], split[:, :, 2]
        scores = jnp.einsum("nthe,nshe->nhts", q, k) * (d // HEADS) ** -0.5
        scores = jnp.where(mask[None, None], scores, -1e9)
        values = jnp.einsum("nhts,nshe->nthe", jax.nn.softmax(scores), v)
        return linear(p["mix"], values.reshape(n, t, d))

    def predict(p: Any, tokens: Any) -> Any:
        x = p["embed"][tokens] + places[None]
        for block in range(BLOCKS):
            own = p[f"block{block}"]
            x = x + attend(own, normalise(own["norm1"], x))
            hidden = jax.nn.gelu(linear(own["up"], normalise(own["norm2"], x)))
            x = x + linear(own["down"], hidden)
        return normalise(p["norm"], x) @ p["out"]

    tokens = jnp.asarray(draw.integers(0, VOCABULARY, (count, TOKENS + 1)), jnp.int32)
    batch = Batch(tokens[:, :-1], tokens[:, 1:], jnp.ones(count))
    return Workload("lm", Objective(predict, sequence_nll), params, batch)


def resnet18(count: int = 1024) -> Workload:
    """The library's ResNet-18 over 32×32×3, 11 million parameters."""
    draw = np.random.default_rng(0)
    model = MODELS["resnet18"]((32, 32, 3), 10)
    init = model.init(jax.random.key(0))
    batch = classes(draw, normal(draw, count, 32, 32, 3))
    objective = bind(model, init.stats, cross_entropy)
    return Workload("resnet18", objective, init.params, batch)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "mlp": mlp,
    "cnn": cnn,
    "lm": language_model,
    "resnet18": resnet18,
}


def normal(draw: np.random.Generator, *shape: int, scale: float = 1.0) -> Any:
    """Normal numbers in float32."""
    return jnp.asarray(scale * draw.normal(size=shape), jnp.float32)


def classes(draw: np.random.Generator, inputs: Any) -> Batch:
    """Inputs with random labels of ten classes and weight one."""
    count = inputs.shape[0]
    labels = jnp.asarray(draw.integers(0, 10, count), jnp.int32)
    return Batch(inputs, labels, jnp.ones(count))


def norm() -> dict[str, Any]:
    """Scale and bias of a normalisation."""
    return {"scale": jnp.ones(MODEL_WIDTH), "bias": jnp.zeros(MODEL_WIDTH)}


def dense(draw: np.random.Generator, fan_in: int, fan_out: int) -> dict[str, Any]:
    """Kernel and bias."""
    kernel = normal(draw, fan_in, fan_out, scale=fan_in**-0.5)
    return {"kernel": kernel, "bias": jnp.zeros(fan_out)}


def linear(p: Any, x: Any) -> Any:
    """Over the last axis."""
    return x @ p["kernel"] + p["bias"][None, None]


def normalise(p: Any, x: Any) -> Any:
    """Layer normalisation over the last axis."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    spread = jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-6)
    return centred / spread * p["scale"][None, None] + p["bias"][None, None]
