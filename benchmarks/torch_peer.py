"""The nets of this library in PyTorch, trained step by step as its users do."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from unlearn_jax.types import Batch


def conv_norm(
    fan_in: int, fan_out: int, size: int = 3, stride: int = 1, pad: int = 1
) -> nn.Module:
    """Convolution, batch-norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(fan_in, fan_out, size, stride, pad, bias=False),
        nn.BatchNorm2d(fan_out),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """Inputs plus two convolutions of them."""

    def __init__(self, width: int):
        super().__init__()
        self.branch = nn.Sequential(conv_norm(width, width), conv_norm(width, width))

    def forward(self, values: Any) -> Any:
        """Same shape in and out."""
        return values + self.branch(values)


class Scale(nn.Module):
    """A constant factor."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, values: Any) -> Any:
        """Multiply."""
        return self.factor * values


def cnn(image: tuple[int, ...], width: int = 16, hidden: int = 128) -> nn.Module:
    """conv(w), pool, conv(2w), pool, dense(hidden), dense(10)."""
    height, columns, channels = image
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear((height // 4) * (columns // 4) * 2 * width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


def resnet9(image: tuple[int, ...]) -> nn.Module:
    """ResNet-9, widths 64, 128, 256, 128."""
    return nn.Sequential(
        conv_norm(image[2], 64),
        conv_norm(64, 128, 5, 2, 2),
        Residual(128),
        conv_norm(128, 256),
        nn.MaxPool2d(2),
        Residual(256),
        conv_norm(256, 128, pad=0),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10, bias=False),
        Scale(0.2),
    )


NETS = {"cnn": cnn, "resnet9": resnet9}


def contenders(model: str, data: Batch, batch: int) -> dict[str, Callable[[], Any]]:
    """One epoch over ``data``, in PyTorch's default layout and with channels last."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    version = torch.__version__.split("+")[0]
    return {
        f"PyTorch {version}": epoch(model, data, batch, torch.contiguous_format),
        f"PyTorch {version}, channels last": epoch(
            model, data, batch, torch.channels_last
        ),
    }


def epoch(model: str, data: Batch, batch: int, layout: Any) -> Callable[[], Any]:
    """Steps of SGD with momentum over the shuffled examples."""
    images = np.asarray(data.inputs)
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    inputs = inputs.contiguous(memory_format=layout)
    targets = torch.from_numpy(np.asarray(data.targets)).long()
    net = NETS[model](images.shape[1:]).to(memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        order = torch.randperm(len(targets))
        for index in order.split(batch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(inputs[index]), targets[index])
            loss.backward()
            optimizer.step()

    return run
