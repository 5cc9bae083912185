"""Shapes worth timing: blocks of gradients that TRAK projects."""

from typing import NamedTuple


class Shape(NamedTuple):
    """Description: examples, parameters, numbers that are left of them."""

    examples: int
    parameters: int
    width: int
    source: str


SHAPES = (
    Shape(100, 2**16, 512, "a small net"),
    Shape(64, 2**18, 2048, "a layer of ResNet-18"),
)
