"""ResNet-9 and ResNet-18 for small images (3×3 stem, no early pooling)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from unlearn_jax.models.layers import Conv, max_pool
from unlearn_jax.models.model import Model, from_nnx
from unlearn_jax.types import Array


class ConvNorm(nnx.Module):
    """Convolution without bias, then batch-norm; ReLU is the caller's."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kind: dict[str, Any],
        rngs: nnx.Rngs,
        *,
        size: int = 3,
        stride: int = 1,
        pad: int | None = None,
    ):
        pad = (size - 1) // 2 if pad is None else pad
        self.conv = Conv(
            in_features,
            out_features,
            (size, size),
            strides=(stride, stride),
            padding=((pad, pad), (pad, pad)),
            use_bias=False,
            **kind,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(
            out_features,
            momentum=0.9,
            epsilon=1e-5,
            dtype=kind["compute_dtype"] or kind["dtype"],
            param_dtype=kind["dtype"],
            rngs=rngs,
        )
        # Flax keeps the averages in float32 whatever the parameters are.
        average = jnp.promote_types(kind["dtype"], jnp.float32)
        self.norm.mean = nnx.BatchStat(jnp.zeros((out_features,), average))
        self.norm.var = nnx.BatchStat(jnp.ones((out_features,), average))

    def __call__(self, inputs: Array) -> Array:
        """(n, h, w, in) to (n, h / stride, w / stride, out)."""
        return self.norm(self.conv(inputs))


class Block(nnx.Module):
    """Two convolutions around a shortcut (identity, or 1×1 where the shape changes)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stride: int,
        kind: dict[str, Any],
        rngs: nnx.Rngs,
    ):
        self.conv1 = ConvNorm(in_features, out_features, kind, rngs, stride=stride)
        self.conv2 = ConvNorm(out_features, out_features, kind, rngs)
        self.projected = stride != 1 or in_features != out_features
        if self.projected:
            self.shortcut = ConvNorm(
                in_features, out_features, kind, rngs, size=1, stride=stride
            )

    def __call__(self, inputs: Array) -> Array:
        """Residual map followed by ReLU."""
        values = self.conv2(jax.nn.relu(self.conv1(inputs)))
        shortcut = self.shortcut(inputs) if self.projected else inputs
        return jax.nn.relu(values + shortcut)


class ResNet9(nnx.Module):
    """Eight convolutions in two residual stages and a linear head."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        widths: tuple[int, int, int, int],
        logit_scale: float,
        kind: dict[str, Any],
        rngs: nnx.Rngs,
    ):
        first, second, third, last = widths
        self.stem = ConvNorm(channels, first, kind, rngs)
        self.down1 = ConvNorm(first, second, kind, rngs, size=5, stride=2)
        self.residual1 = nnx.List([ConvNorm(second, second, kind, rngs) for _ in "ab"])
        self.down2 = ConvNorm(second, third, kind, rngs)
        self.residual2 = nnx.List([ConvNorm(third, third, kind, rngs) for _ in "ab"])
        self.last = ConvNorm(third, last, kind, rngs, pad=0)
        self.head = nnx.Linear(
            last,
            outputs,
            use_bias=False,
            dtype=kind["compute_dtype"] or kind["dtype"],
            param_dtype=kind["dtype"],
            rngs=rngs,
        )
        self.logit_scale = logit_scale
        self.dtype = kind["dtype"]

    def features(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """Largest value of each channel of the last convolution."""
        del rngs
        relu = jax.nn.relu
        values = relu(self.stem(inputs))
        values = relu(self.down1(values))
        branch = values
        for layer in self.residual1:
            branch = relu(layer(branch))
        values = max_pool(relu(self.down2(values + branch)))
        branch = values
        for layer in self.residual2:
            branch = relu(layer(branch))
        values = relu(self.last(values + branch))
        return jnp.max(values, axis=(1, 2))

    def __call__(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """(n, h, w, c) to (n, outputs)."""
        logits = self.head(self.features(inputs, rngs=rngs))
        return (self.logit_scale * logits).astype(self.dtype)


class ResNet18(nnx.Module):
    """Four stages of two residual blocks, mean over positions, linear head."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        width: int,
        kind: dict[str, Any],
        rngs: nnx.Rngs,
    ):
        self.stem = ConvNorm(channels, width, kind, rngs)
        blocks, fan_in = [], width
        for stage in range(4):
            fan_out = width * 2**stage
            for position in range(2):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(Block(fan_in, fan_out, stride, kind, rngs))
                fan_in = fan_out
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(
            fan_in,
            outputs,
            dtype=kind["compute_dtype"] or kind["dtype"],
            param_dtype=kind["dtype"],
            rngs=rngs,
        )
        self.dtype = kind["dtype"]

    def features(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """Mean over positions of the last stage."""
        del rngs
        values = jax.nn.relu(self.stem(inputs))
        for block in self.blocks:
            values = block(values)
        return jnp.mean(values, axis=(1, 2))

    def __call__(self, inputs: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        """(n, h, w, c) to (n, outputs)."""
        return self.head(self.features(inputs, rngs=rngs)).astype(self.dtype)


def resnet9(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    widths: tuple[int, int, int, int] = (64, 128, 256, 128),
    logit_scale: float = 0.2,
    dtype: Any = jnp.float32,
    compute_dtype: Any = None,
) -> Model:
    """ResNet-9 in the form that the datamodel line of work trains on CIFAR-10.

    Args:
        input_shape: (height, width, channels) of one image, at least 11 × 11.
        outputs: Classes.
        widths: Channels of the stem, the two residual stages and the last convolution.
        logit_scale: Factor on the logits (no bias in the head).
        dtype: Dtype of parameters and outputs.
        compute_dtype: Dtype of the arithmetic in between, such as ``jnp.bfloat16``.

    Raises:
        ValueError: ``input_shape`` is not that of an image.
    """
    _check_image(input_shape, 11, "resnet9")
    kind = {"dtype": dtype, "compute_dtype": compute_dtype}
    return from_nnx(
        lambda rngs: ResNet9(input_shape[2], outputs, widths, logit_scale, kind, rngs)
    )


def resnet18(
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    width: int = 64,
    dtype: Any = jnp.float32,
    compute_dtype: Any = None,
) -> Model:
    """ResNet-18 with the stem for 32×32 images (one 3×3 convolution, no pooling).

    Args:
        input_shape: (height, width, channels) of one image, at least 8 × 8.
        outputs: Classes.
        width: Channels of the first stage; each later stage doubles them.
        dtype: Dtype of parameters and outputs.
        compute_dtype: Dtype of the arithmetic in between, such as ``jnp.bfloat16``.

    Raises:
        ValueError: ``input_shape`` is not that of an image.
    """
    _check_image(input_shape, 8, "resnet18")
    kind = {"dtype": dtype, "compute_dtype": compute_dtype}
    return from_nnx(lambda rngs: ResNet18(input_shape[2], outputs, width, kind, rngs))


def _check_image(input_shape: tuple[int, ...], side: int, name: str) -> None:
    if len(input_shape) != 3 or min(input_shape[:2]) < side:
        raise ValueError(
            f"{name} needs images of shape (height, width, channels) with at least "
            f"{side} x {side} pixels, got examples of shape {input_shape}; "
            f"use the mlp for flat inputs"
        )
