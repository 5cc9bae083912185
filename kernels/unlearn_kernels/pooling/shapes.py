"""Shapes worth timing: the pooling layers of the networks that this library trains."""

from typing import NamedTuple


class Shape(NamedTuple):
    """Description: one max-pooling over a batch of images."""

    images: tuple[int, int, int, int]
    window: tuple[int, int]
    source: str


SHAPES = (
    Shape((128, 28, 28, 16), (2, 2), "small CNN, 28x28, after the first convolution"),
    Shape((128, 32, 32, 16), (2, 2), "small CNN, 32x32, after the first convolution"),
    Shape((128, 16, 16, 32), (2, 2), "small CNN, 32x32, after the second convolution"),
    Shape((128, 16, 16, 256), (2, 2), "ResNet-9, after the second stage"),
)
