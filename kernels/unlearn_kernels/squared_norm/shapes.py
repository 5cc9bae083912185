"""Shapes worth timing: layers whose per-example gradients are measured."""

from unlearn_kernels.fisher_diagonal.shapes import SHAPES as LAYERS

SHAPES = tuple(shape for shape in LAYERS if shape.positions > 1)
