"""The perceptual hash against the published way of computing it, and what it is for."""

from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.fft
from PIL import Image

from bunny.curate.phash import FLAT, phash


def twin(pixels: np.ndarray) -> int:
    """`imagehash.phash`, word for word in its definition: no reducing, scipy's cosine transform."""
    grey = Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    low = scipy.fft.dct(scipy.fft.dct(np.asarray(grey, float), axis=0), axis=1)[:8, :8]
    return int("".join(str(int(bit)) for bit in (low > np.median(low)).ravel()), 2)


def scene(seed: int, side: int = 300) -> np.ndarray:
    """Soft blobs of colour with a little grain: more like a photograph than noise is."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((side, side), 3)
    return (np.asarray(coarse, int) * 0.9 + rng.integers(0, 25, (side, side, 3))).astype(np.uint8)


def bits(first: int, second: int) -> int:
    return (first ^ second).bit_count()


@pytest.mark.parametrize("side", [20, 32, 90, 300])
def test_the_hash_is_the_published_one(side: int) -> None:
    """Small pictures are not reduced first: equal; reducing a large one may turn a bit at the median."""
    differing = [bits(phash(scene(seed, side)), twin(scene(seed, side))) for seed in range(30)]
    assert max(differing) <= (0 if side <= 90 else 2)
    assert np.mean(differing) < 0.25


def test_a_smaller_and_a_compressed_copy_stay_near_and_other_pictures_far() -> None:
    for seed in range(10):
        original = Image.fromarray(scene(seed))
        file = io.BytesIO()
        original.resize((200, 200)).save(file, "JPEG", quality=60)
        assert bits(phash(np.asarray(original)), phash(np.asarray(Image.open(file)))) <= 4
        assert bits(phash(scene(seed)), phash(scene(seed + 100))) > 12


@pytest.mark.parametrize("grey", [0, 1, 77, 255])
def test_pictures_of_one_grey_are_known_as_such(grey: int) -> None:
    assert phash(np.full((50, 31, 3), grey, np.uint8)) in FLAT


def test_any_size_works() -> None:
    for shape in ((1, 1, 3), (1, 500, 3), (2000, 2, 3)):
        assert 0 <= phash(np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)) < 2**64
