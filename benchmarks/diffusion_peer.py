"""The diffusion transformer of this library in PyTorch, trained as its users do."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from unlearn_jax.types import Batch

WAVES, LONGEST = 32, 1000.0


def rotary(length: int, size: int, base: float = 10_000.0) -> tuple[Any, Any]:
    """Cosines and sines of each position, of the first half of a head."""
    half = size // 2
    frequencies = base ** (-torch.arange(half) / half)
    angles = torch.arange(length)[:, None] * frequencies[None]
    return angles.cos(), angles.sin()


def rotated(values: Any, turns: tuple[Any, Any]) -> Any:
    """(n, h, t, d), the halves of a head turned against one another."""
    first, second = values.chunk(2, dim=-1)
    cosine, sine = turns
    parts = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat(parts, dim=-1)


def normal(values: Any) -> Any:
    """Each position over its root mean square."""
    return functional.rms_norm(values, values.shape[-1:], eps=1e-5)


def linear(fan_in: int, fan_out: int, gain: float = 1.0) -> nn.Linear:
    """Without bias, whose results have ``gain`` times the inputs' variance."""
    made = nn.Linear(fan_in, fan_out, bias=False)
    nn.init.normal_(made.weight, std=(gain / fan_in) ** 0.5)
    return made


def zero(fan_in: int, fan_out: int) -> nn.Linear:
    """Begins at zero."""
    made = nn.Linear(fan_in, fan_out)
    nn.init.zeros_(made.weight)
    nn.init.zeros_(made.bias)
    return made


class Attention(nn.Module):
    """Among positions of one kind, or from one kind to another."""

    def __init__(self, width: int, heads: int, other: int, gain: float):
        super().__init__()
        self.query, self.out = linear(width, width), linear(width, width, gain)
        self.key, self.value = linear(other, width), linear(other, width)
        self.heads = heads

    def forward(
        self, values: Any, other: Any, turns: Any = None, causal: bool = False
    ) -> Any:
        """(n, t, width) and (n, s, other) to (n, t, width)."""
        n, length, width = values.shape
        query, key, value = (
            each.view(n, -1, self.heads, width // self.heads).transpose(1, 2)
            for each in (self.query(values), self.key(other), self.value(other))
        )
        if turns is not None:
            query, key = rotated(query, turns), rotated(key, turns)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=causal
        )
        return self.out(mixed.transpose(1, 2).reshape(n, length, width))


class TextBlock(nn.Module):
    """Of the causal encoder: attention, then a gated product."""

    def __init__(self, width: int, heads: int, depth: int):
        super().__init__()
        gain, hidden = 0.5 / depth, 8 * -(-width // 3)
        self.first, self.second = (nn.RMSNorm(width, eps=1e-5) for _ in range(2))
        self.attention = Attention(width, heads, width, gain)
        self.gate, self.up = linear(width, hidden), linear(width, hidden)
        self.down = linear(hidden, width, gain)

    def forward(self, values: Any, turns: Any) -> Any:
        """(n, t, width)."""
        inner = self.first(values)
        values = values + self.attention(inner, inner, turns, causal=True)
        inner = self.second(values)
        hidden = functional.silu(self.gate(inner)) * self.up(inner)
        return values + self.down(hidden)


class Block(nn.Module):
    """Of the network: attention, cross-attention, two layers; the time scales."""

    def __init__(self, width: int, heads: int, text: int, depth: int):
        super().__init__()
        gain = 0.5 / depth
        self.attention = Attention(width, heads, width, gain)
        self.cross = Attention(width, heads, text, gain)
        self.up, self.down = nn.Linear(width, 4 * width), linear(4 * width, width, gain)
        self.modulation = zero(width, 6 * width)

    def forward(self, values: Any, turns: Any, time: Any, text: Any) -> Any:
        """(n, p, width)."""
        told = self.modulation(time)[:, None].chunk(6, dim=-1)
        moved, scaled, gated, moved_too, scaled_too, gated_too = told
        inner = normal(values) * (1 + scaled) + moved
        values = values + (1 + gated) * self.attention(inner, inner, turns)
        values = values + self.cross(normal(values), text)
        inner = normal(values) * (1 + scaled_too) + moved_too
        grown = functional.gelu(self.up(inner), approximate="tanh")
        return values + (1 + gated_too) * self.down(grown)


class Denoiser(nn.Module):
    """Caption, image and time to noise."""

    def __init__(self, vocabulary: int, image: int, sizes: dict[str, int]):
        super().__init__()
        width, heads, text = sizes["width"], sizes["heads"], sizes["text_width"]
        depth, text_depth = sizes["depth"], sizes["text_depth"]
        self.patch = patch = sizes["patch"]
        count = (image // patch) ** 2
        self.tokens = nn.Embedding(vocabulary, text)
        self.words = nn.ModuleList(
            TextBlock(text, heads, text_depth) for _ in range(text_depth)
        )
        self.told = nn.RMSNorm(text, eps=1e-5)
        self.patches = nn.Linear(patch * patch, width)
        self.places = nn.Parameter(0.02 * torch.randn(count, width))
        self.time, self.time_out = nn.Linear(WAVES, width), nn.Linear(width, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, text, depth) for _ in range(depth)
        )
        self.modulation = zero(width, 2 * width)
        self.head = zero(width, patch * patch)
        self.turns = rotary(count, width // heads)
        self.text_turns = rotary(sizes["tokens"], text // heads)
        half = WAVES // 2
        self.frequencies = LONGEST ** (-torch.arange(half) / half)

    def forward(self, image: Any, time: Any, tokens: Any) -> Any:
        """(n, h, w), (n,) and (n, t) to (n, h·w)."""
        text = self.tokens(tokens)
        for block in self.words:
            text = block(text, self.text_turns)
        text = self.told(text)
        n, side, _ = image.shape
        p = self.patch
        cells = image.view(n, side // p, p, side // p, p).transpose(2, 3)
        values = self.patches(cells.reshape(n, -1, p * p)) + self.places
        angles = time[:, None] * self.frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        inner = functional.silu(self.time(waves))
        time = functional.silu(self.time_out(inner))
        for block in self.blocks:
            values = block(values, self.turns, time, text)
        moved, scaled = self.modulation(time)[:, None].chunk(2, dim=-1)
        noise = self.head(normal(values) * (1 + scaled) + moved)
        cells = noise.view(n, side // p, side // p, p, p).transpose(2, 3)
        return cells.reshape(n, -1)


def step(
    batch: Batch,
    signal: np.ndarray,
    vocabulary: int,
    sizes: dict[str, int],
    rate: float,
    drop: float,
) -> tuple[str, int, Callable[[], Any]]:
    """A name, the count of parameters, and one step of Adam: draws, loss, update."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    images = torch.from_numpy(np.array(batch.inputs, np.float32)[..., 0])
    tokens = torch.from_numpy(np.array(batch.targets, np.int64))
    kept = torch.from_numpy(np.array(signal, np.float32))
    model = Denoiser(vocabulary, images.shape[1], sizes)
    rule = torch.optim.Adam(model.parameters(), lr=rate)

    def once() -> None:
        rule.zero_grad(set_to_none=True)
        n = len(images)
        times = torch.randint(1, len(kept), (n,))
        noise = torch.randn_like(images)
        silent = torch.rand(n) < drop
        left = kept[times][:, None, None]
        seen = left.sqrt() * images + (1 - left).sqrt() * noise
        words = torch.where(silent[:, None], 0, tokens)
        told = model(seen, times.float(), words)
        loss = functional.mse_loss(told, noise.view(n, -1))
        loss.backward()
        rule.step()

    count = sum(each.numel() for each in model.parameters())
    return f"PyTorch {torch.__version__.split('+')[0]}", count, once
