"""S2 multi-scale features: one picture seen at several sizes by the same tower, concatenated channel by channel.

Source: "When Do We Not Need Larger Vision Models?" (Shi et al., 2024), as the original Bunny uses it: every scale is
cut into squares of the smallest scale, the tower sees each square, the squares' features are put together again and
averaged down to the grid of the smallest scale. So tokens stay as many as before, and only channels grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bunny.model.attention import at_least_float32


def multiscale(pixels: Tensor, scales: Sequence[int], tower: Callable[[Tensor], Tensor]) -> Tensor:
    """Features (B, N, C * len(scales)) of pictures (B, 3, L, L), L being the largest scale.

    tower: (b, 3, s, s) pixels at the smallest scale s -> (b, N, C) features of a square grid. Scales: multiples of s.
    """
    side = scales[0]
    grids = [_at_scale(pixels, scale, scale // side, side, tower) for scale in scales]  # (B, C, rows, columns) each
    return torch.cat(grids, dim=1).flatten(2).transpose(1, 2)


def _at_scale(pixels: Tensor, scale: int, cuts: int, side: int, tower: Callable[[Tensor], Tensor]) -> Tensor:
    """Features of one scale on the grid of the smallest: (B, C, rows, columns)."""
    whole = pixels.to(at_least_float32(pixels.dtype))
    resized = interpolate(whole, size=(scale, scale), mode="bicubic").to(pixels.dtype)
    squares = resized.unflatten(3, (cuts, side)).unflatten(2, (cuts, side))  # (B, 3, cuts, side, cuts, side)
    squares = squares.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)  # (cuts * cuts * B, 3, side, side), row by row
    features = tower(squares)  # (cuts * cuts * B, N, C)
    rows = math.isqrt(features.shape[1])
    grid = features.unflatten(1, (rows, rows)).unflatten(0, (cuts, cuts, -1))  # (cuts, cuts, B, rows, columns, C)
    whole = grid.permute(2, 5, 0, 3, 1, 4).flatten(4, 5).flatten(2, 3)  # (B, C, cuts * rows, cuts * columns)
    return interpolate(whole.to(at_least_float32(whole.dtype)), size=(rows, rows), mode="area").to(features.dtype)
