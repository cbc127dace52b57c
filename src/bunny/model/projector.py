"""Projectors: (B, N, vision width) picture features to (B, M, language width) tokens.

Names, layer order and state-dict keys are the original's (multimodal_projector/builder.py), so its `mm_projector.bin`
loads key by key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bunny.core.errors import UserError

KINDS = "linear, mlpNx_gelu (N = 1, 2, …), spp_v1, spp_v2, spp_v3, ldp, minigpt, vanilla, identity"


def build_projector(kind: str, vision_width: int, text_width: int) -> nn.Module:
    """The projector of that name. Raises UserError for an unknown name."""
    if layers := re.fullmatch(r"mlp(\d+)x_gelu", kind):
        return mlp(int(layers.group(1)), vision_width, text_width)
    makers: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(vision_width, text_width),
        "identity": nn.Identity,
        "spp_v1": lambda: PooledProjector(vision_width, text_width, order="linear pool linear"),
        "spp_v2": lambda: PooledProjector(vision_width, text_width, order="linear linear pool"),
        "spp_v3": lambda: PooledProjector(vision_width, text_width, order="linear_0 pool linear linear"),
        "ldp": lambda: LightDownsampleProjector(vision_width, text_width),
        "minigpt": lambda: GroupProjector(vision_width, text_width, interleave=False),
        "vanilla": lambda: GroupProjector(vision_width, text_width, interleave=True),
    }
    if kind not in makers:
        raise UserError(f"no projector is called `{kind}`", fix=f"known: {KINDS}")
    return makers[kind]()


def check_kind(kind: str) -> None:
    """Raise UserError if no projector has that name. Nothing is allocated."""
    with torch.device("meta"):
        build_projector(kind, 8, 8)


def output_tokens(kind: str, tokens: int) -> int:
    """Tokens that come out for `tokens` that go in."""
    side = math.isqrt(tokens)
    if kind == "ldp":
        return ((side + 1) // 2) ** 2
    if kind.startswith("spp_"):
        return (side // 2) ** 2
    return tokens // 4 if kind in ("minigpt", "vanilla") else tokens


def mlp(layers: int, vision_width: int, text_width: int) -> nn.Sequential:
    """Linear layers with GELU (erf) between them; keys 0, 2, 4, …"""
    modules: list[nn.Module] = [nn.Linear(vision_width, text_width)]
    for _ in range(1, layers):
        modules += [nn.GELU(), nn.Linear(text_width, text_width)]
    return nn.Sequential(*modules)


class PooledProjector(nn.Module):
    """The original's `spp`: two or three linear layers around a 2x2 average pool: a quarter of the tokens.

    All three layers exist in every variant (so the weights fit), `order` says which are used.
    """

    def __init__(self, vision_width: int, text_width: int, order: str) -> None:
        super().__init__()
        self.order = order
        self.linear_0 = nn.Linear(vision_width, vision_width)
        self.linear_1 = nn.Linear(vision_width, text_width)
        self.linear_2 = nn.Linear(text_width, text_width)
        self.pooling = nn.AvgPool2d(kernel_size=2)
        self.unused = () if "linear_0" in order else ("linear_0.weight", "linear_0.bias")

    def forward(self, features: Tensor) -> Tensor:
        if self.order.startswith("linear_0"):
            return self.linear_2(self.linear_1(self._pool(self.linear_0(features))))  # type: ignore[no-any-return]
        hidden = self.linear_1(features)
        if self.order == "linear pool linear":
            return self.linear_2(self._pool(hidden))  # type: ignore[no-any-return]
        return self._pool(self.linear_2(hidden))

    def _pool(self, features: Tensor) -> Tensor:
        side = math.isqrt(features.shape[1])
        grid = features.transpose(1, 2).unflatten(2, (side, side))  # (B, C, rows, columns)
        return self.pooling(grid).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]  # (B, N/4, C)


class GroupProjector(nn.Module):
    """Four neighbouring tokens become one wide token, then one linear layer (`minigpt`; `vanilla` interleaves)."""

    def __init__(self, vision_width: int, text_width: int, interleave: bool) -> None:
        super().__init__()
        self.interleave = interleave
        self.linear = nn.Linear(4 * vision_width, text_width)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[1] % 4:
            raise UserError(
                f"{features.shape[1]} picture tokens cannot be grouped by four", fix="use an mlp or spp projector"
            )
        grouped = features.unflatten(1, (-1, 4))  # (B, N/4, 4, C)
        if self.interleave:
            grouped = torch.transpose(grouped, 2, 3)
        return self.linear(grouped.flatten(2))  # type: ignore[no-any-return]


class LightDownsampleProjector(nn.Module):
    """MobileVLM's LDP: an MLP, then two depthwise-separable blocks, the second of stride 2 (quarters the tokens)."""

    def __init__(self, vision_width: int, text_width: int) -> None:
        super().__init__()
        blocks = [nn.Identity(), InvertedResidual(text_width, stride=1), InvertedResidual(text_width, stride=2)]
        layers = [nn.Identity(), nn.Linear(vision_width, text_width), nn.GELU(), nn.Linear(text_width, text_width)]
        self.model = nn.ModuleDict({"mlp": nn.Sequential(*layers), "mb_block": nn.Sequential(*blocks)})

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.model["mlp"](features)
        side = math.isqrt(hidden.shape[1])
        grid = hidden.transpose(1, 2).unflatten(2, (side, side))  # (B, C, rows, columns)
        return self.model["mb_block"](grid).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """MobileNet-v3 block: depthwise 3x3, squeeze-excitation, pointwise; residual where the size stays (MobileVLM)."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1
        depthwise = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.block = nn.Sequential(
            nn.Sequential(depthwise, ChannelNorm(width), nn.Hardswish()),
            SqueezeExcitation(width),
            nn.Sequential(pointwise, ChannelNorm(width)),
        )

    def forward(self, grid: Tensor) -> Tensor:
        out = self.block(grid)
        return grid + out if self.residual else out  # type: ignore[no-any-return]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, rows, columns)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-5)

    def forward(self, grid: Tensor) -> Tensor:
        return super().forward(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class SqueezeExcitation(nn.Module):
    """Channel gates from the mean over the grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = max(8, (width // 4 + 4) // 8 * 8)  # a multiple of eight, as in MobileNet-v3
        self.fc1 = nn.Conv2d(width, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, width, 1)

    def forward(self, grid: Tensor) -> Tensor:
        gate = nn.functional.relu(self.fc1(grid.mean((2, 3), keepdim=True)))
        return grid * nn.functional.hardsigmoid(self.fc2(gate))  # type: ignore[no-any-return]
