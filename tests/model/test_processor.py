"""Pictures are padded as the original pads them, and lists of pictures keep their places."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bunny.model.processor import pad_to_square


def expand2square(picture: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """The original's function (util/mm_utils.py), kept here as the slow twin."""
    width, height = picture.size
    if width == height:
        return picture
    if width > height:
        result = Image.new(picture.mode, (width, width), background)
        result.paste(picture, (0, (width - height) // 2))
        return result
    result = Image.new(picture.mode, (height, height), background)
    result.paste(picture, ((height - width) // 2, 0))
    return result


@pytest.mark.parametrize("size", [(5, 2), (2, 5), (7, 4), (4, 7), (3, 3), (1, 8), (9, 6)])
def test_padding_equals_the_originals(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    mean = [0.48145466, 0.4578275, 0.40821073]
    wanted = expand2square(picture, tuple(int(value * 255) for value in mean))
    assert np.array_equal(np.asarray(pad_to_square(picture, mean)), np.asarray(wanted))


def test_an_odd_border_is_rounded_down() -> None:
    picture = Image.new("RGB", (5, 2), (9, 9, 9))
    rows = np.asarray(pad_to_square(picture, [0.5] * 3))[:, 0, 0].tolist()
    assert rows == [127, 9, 9, 127, 127]
