"""Embedders that recipes of the tests name: `{use: tests.curate.embedding_classes:Colours}`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bunny.core.recipe import Section
from bunny.core.types import Embedded


class Colours(Section):
    """Joint space of three colours, which the words red, green and blue name; the lower half counts double."""

    name: str = "colours of a recipe"

    @property
    def dim(self) -> int:
        return 3

    def embed(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> Embedded:
        image = np.array([picture[len(picture) // 2 :].reshape(-1, 3).mean(axis=0) + 1 for picture in pictures])
        words = np.array([[word in text for word in ("red", "green", "blue")] for text in texts], dtype=np.float32)
        words[~words.any(axis=1)] = np.nan
        return Embedded(image, words)
