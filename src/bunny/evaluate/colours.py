"""The one colour of a picture, where there is no doubt about it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from bunny.core.types import BoolArray

HUES = {
    "red": (347, 8),
    "orange": (20, 36),
    "yellow": (48, 64),
    "green": (85, 160),
    "blue": (200, 250),
    "purple": (265, 295),
}
"""Degrees between which everybody says the name; between these windows nobody is asked."""
CHINESE = {"red": "红", "orange": "橙", "yellow": "黄", "green": "绿", "blue": "蓝", "purple": "紫"}
STRONG = 0.45  # least saturation; orange and yellow need BRIGHT, for dark ones are brown or olive
BRIGHT = 0.7
SHARE = 0.85  # of the coloured pixels that must have the one name
COVER = 0.7  # of all pixels that are not white that must be coloured: black outlines yes, black stripes no
WHITE = 0.1  # of the space between a line's first and last drawn pixel that may be white: no red-and-white flags


def colour_of(picture: Image.Image) -> str | None:
    """The name of the colour that nearly all coloured pixels have; None where there is doubt. picture: RGB on white."""
    hsv = np.asarray(picture.convert("HSV"), dtype=np.float64)  # (H, W, 3), 0 to 255
    hue, saturation, value = hsv[..., 0] * 360 / 256, hsv[..., 1] / 255, hsv[..., 2] / 255
    drawn = (saturation > 0.08) | (value < 0.95)
    coloured = drawn & (saturation > 0.2) & (value > 0.25)
    if drawn.sum() < 200 or coloured.sum() < COVER * drawn.sum():
        return None
    if _white_inside(drawn) > WHITE:
        return None
    for name, (low, high) in HUES.items():
        inside = (hue >= low) & (hue <= high) if low < high else (hue >= low) | (hue <= high)
        strong = (saturation >= STRONG) & (value >= (BRIGHT if name in ("orange", "yellow") else 0.35))
        if (inside & strong & coloured).sum() >= SHARE * coloured.sum():
            return name
    return None


def _white_inside(drawn: BoolArray) -> float:
    """The share of pixels that are not drawn, between the first and the last drawn one of each line. drawn: (H, W)."""
    inside = np.logical_or.accumulate(drawn, axis=1) & np.logical_or.accumulate(drawn[:, ::-1], axis=1)[:, ::-1]
    return float(1 - drawn.sum() / inside.sum())
