"""Convolutions of every kind, each a small net."""

import jax
from kind_parts import draw, net

from unlearn_kernels.convolution import conv2d

LAYOUTS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC")}


def convolution(shape, kernel, layout=None, **options):
    dimensions = len(shape) - 1
    options = {"window_strides": (1,) * dimensions, "padding": "SAME"} | options

    def apply(p, x):
        return jax.lax.conv_general_dilated(
            x, p["k"], dimension_numbers=layout or LAYOUTS[dimensions], **options
        )

    return net({"k": draw(2, *kernel)}, apply, shape)


def transposed_convolution():
    def apply(p, x):
        return jax.lax.conv_transpose(x, p["k"], (2, 2), "SAME")

    return net({"k": draw(2, 3, 3, 2, 3)}, apply, (4, 4, 2))


def channels_first():
    return convolution(
        (2, 6, 5),
        (3, 2, 3, 2),
        layout=("NCHW", "OIHW", "NCHW"),
        window_strides=(2, 1),
        rhs_dilation=(1, 2),
        padding=((1, 2), (0, 1)),
    )


def own_convolution(implementation, kernel=(3, 3, 2, 3), **options):
    def apply(p, x):
        return conv2d(x, p["k"], implementation=implementation, **options)

    return net({"k": draw(2, *kernel)}, apply, (6, 6, 2))
