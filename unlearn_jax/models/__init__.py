"""Models as pure functions; ``MODELS``: name to ``factory(input_shape, outputs)``."""

from collections.abc import Callable, Mapping

from unlearn_jax.models.cnn import cnn
from unlearn_jax.models.linear import linear
from unlearn_jax.models.mlp import mlp
from unlearn_jax.models.model import Model, from_nnx
from unlearn_jax.models.resnet import resnet9, resnet18
from unlearn_jax.models.transformer import transformer

MODELS: Mapping[str, Callable[..., Model]] = {
    "linear": linear,
    "mlp": mlp,
    "cnn": cnn,
    "resnet9": resnet9,
    "resnet18": resnet18,
    "transformer": transformer,
}

__all__ = ["MODELS", "Model", "from_nnx"]
