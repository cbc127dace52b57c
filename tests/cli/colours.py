"""An embedder for tests of whole curations: a picture is its mean colour, a text the colours that it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bunny.core.recipe import Section
from bunny.core.types import Embedded

WORDS = ("red", "green", "blue")
RECIPE = """
name: colours
seed: 3
pool:
  source: {use: folder, path: pictures}
curate:
  embedder: {use: "tests.cli.colours:Colours"}
  steps:
    - {use: exact}
    - {use: dedup, above: 0.99, within: pool}
    - {use: band, by: pair_cosine, high: 0.9}
"""


class Colours(Section):
    """`{use: "tests.cli.colours:Colours"}`"""

    name: str = "mean colour"
    dim: int = 3

    def embed(self, pictures: Sequence[npt.NDArray[np.uint8]], texts: Sequence[str]) -> Embedded:
        image = np.array([picture.reshape(-1, 3).mean(axis=0) for picture in pictures], dtype=np.float32)
        words = np.array([[word in text for word in WORDS] for text in texts], dtype=np.float32)
        words[~words.any(axis=1)] = np.nan
        return Embedded(image / np.linalg.norm(image, axis=1, keepdims=True), words)


def write_pictures(folder: Path, count: int = 40) -> None:
    """So many coloured squares with captions; p00 and zz are the same picture, bad.png is none."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(count):
        shade = rng.integers(10, 90, 3)
        shade[number % 3] = 200
        write_picture(folder / f"p{number:02d}.png", shade.tolist(), f"a {WORDS[number % 3]} square")
    (folder / "zz.png").write_bytes((folder / "p00.png").read_bytes())
    (folder / "zz.txt").write_text("a red square again")
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "bad.txt").write_text("a lost square")


def write_picture(path: Path, colour: Sequence[int], caption: str) -> None:
    Image.new("RGB", (8, 6), tuple(colour)).save(path)
    path.with_suffix(".txt").write_text(caption)
