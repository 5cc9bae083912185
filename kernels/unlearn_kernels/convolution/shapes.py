"""Shapes worth timing: the convolutions of the networks that this library trains."""

from typing import NamedTuple


class Shape(NamedTuple):
    """Description: one convolution over a batch of images, padding (pad, pad)."""

    images: tuple[int, int, int, int]
    kernel: tuple[int, int, int, int]
    stride: int
    pad: int
    source: str


SHAPES = (
    Shape((128, 28, 28, 1), (3, 3, 1, 16), 1, 1, "small CNN, 28x28, first"),
    Shape((128, 14, 14, 16), (3, 3, 16, 32), 1, 1, "small CNN, 28x28, second"),
    Shape((128, 32, 32, 3), (3, 3, 3, 16), 1, 1, "small CNN, 32x32, first"),
    Shape((128, 16, 16, 16), (3, 3, 16, 32), 1, 1, "small CNN, 32x32, second"),
    Shape((128, 32, 32, 3), (3, 3, 3, 64), 1, 1, "ResNet, stem"),
    Shape((128, 32, 32, 64), (5, 5, 64, 128), 2, 2, "ResNet-9, 5x5 stride 2"),
    Shape((128, 16, 16, 128), (3, 3, 128, 128), 1, 1, "ResNet-9, first residual"),
    Shape((128, 16, 16, 128), (3, 3, 128, 256), 1, 1, "ResNet-9, widening"),
    Shape((128, 8, 8, 256), (3, 3, 256, 256), 1, 1, "ResNet-9, second residual"),
    Shape((128, 8, 8, 256), (3, 3, 256, 128), 1, 0, "ResNet-9, last"),
    Shape((32, 32, 32, 64), (3, 3, 64, 64), 1, 1, "ResNet-18, first stage"),
    Shape((32, 32, 32, 64), (3, 3, 64, 128), 2, 1, "ResNet-18, 3x3 stride 2"),
    Shape((32, 32, 32, 64), (1, 1, 64, 128), 2, 0, "ResNet-18, shortcut"),
)
