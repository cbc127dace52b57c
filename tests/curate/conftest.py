"""A made-up pool: coloured squares with captions, and an embedder that reads the colour."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import Embedded, ImageRef, Sample


class ColourEmbedder:
    """Joint space of three colours; the words red, green and blue are its axes. Counts the pictures it has seen."""

    name = "colours"
    dim = 3

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> Embedded:
        self.seen += len(pictures)
        image = np.array([picture.reshape(-1, 3).mean(axis=0) for picture in pictures], dtype=np.float32)
        words = np.array([[word in text for word in ("red", "green", "blue")] for text in texts], dtype=np.float32)
        words[~words.any(axis=1)] = np.nan
        return Embedded(image, words)


class Gallery:
    """Pictures by name; `open` is what the data package would hand in."""

    def __init__(self) -> None:
        self.pictures: dict[str, Image.Image] = {}

    def add(self, id: str, colour: tuple[int, int, int], caption: str, size: tuple[int, int] = (8, 8)) -> Sample:
        self.pictures[id] = Image.new("RGB", size, colour)
        return Sample.pair(id, ImageRef(f"{id}.png"), caption, source="made up")

    def open(self, ref: ImageRef) -> Image.Image:
        if ref.path.removesuffix(".png") not in self.pictures:
            raise UserError(f"{ref}: no such picture")
        return self.pictures[ref.path.removesuffix(".png")]


@pytest.fixture
def gallery() -> Gallery:
    return Gallery()


@pytest.fixture
def samples(gallery: Gallery) -> list[Sample]:
    """30 shades of red, green and blue; s00 and s30 have the same pixels; s31 is black; s32 cannot be opened."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(30):
        shade = rng.integers(0, 60, 3)
        shade[number % 3] = 200 + number
        word = ("red", "green", "blue")[number % 3]
        made.append(gallery.add(f"s{number:02d}", tuple(shade.tolist()), f"a {word} square"))
    gallery.pictures["s30"] = gallery.pictures["s00"]
    made.append(Sample.pair("s30", ImageRef("s30.png"), "a red square again", source="made up"))
    made.append(gallery.add("s31", (0, 0, 0), "a black square"))
    made.append(Sample.pair("s32", ImageRef("gone.png"), "a lost square", source="made up"))
    return made


@pytest.fixture
def embedder() -> ColourEmbedder:
    return ColourEmbedder()


@pytest.fixture
def opener(gallery: Gallery) -> Callable[[ImageRef], Image.Image]:
    return gallery.open
