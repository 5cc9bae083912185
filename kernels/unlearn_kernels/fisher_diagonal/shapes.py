"""Shapes worth timing: layers whose squared per-example gradients are wanted."""

from typing import NamedTuple


class Shape(NamedTuple):
    """Description: examples, groups, positions, numbers in and out."""

    examples: int
    groups: int
    positions: int
    taken: int
    given: int
    source: str


SHAPES = (
    Shape(1024, 1, 1, 784, 512, "MLP, first"),
    Shape(1024, 1, 1, 512, 512, "MLP, second"),
    Shape(32, 1, 1024, 27, 32, "CNN, first, patches"),
    Shape(32, 1, 256, 288, 64, "CNN, second, patches"),
    Shape(32, 1, 64, 576, 128, "CNN, third, patches"),
    Shape(8, 1, 1088, 192, 192, "ResNet-18, first stage, columns"),
    Shape(8, 1, 80, 1536, 1536, "ResNet-18, third stage, columns"),
    Shape(20, 1, 64, 128, 384, "small language model, attention"),
    Shape(20, 1, 64, 128, 512, "small language model, up"),
)
