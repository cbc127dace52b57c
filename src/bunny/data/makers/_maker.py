"""What all makers share: curated pairs in, training conversations out, and their share of the stage's rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from bunny.core.recipe import Section
from bunny.core.types import Sample


class Maker(Section):
    """A way to make conversations. `weight` and `cap` are applied by `bunny.data.mixture`."""

    weight: float = Field(
        1.0, gt=0, description="how often a row is seen in one pass: 0.5 draws half, 2 takes it twice"
    )
    cap: int | None = Field(None, gt=0, description="rows at most, after the weight")

    @abstractmethod
    def make(self, samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
        """Conversations about the samples, in their order; the same `rng` state gives the same ones."""

    def inputs(self) -> list[Path]:
        """Files that it reads and that no field names as `path`, `words` or `images`; they need not be there yet."""
        return []

    def check(self) -> None:
        """Raise UserError for what would be missing when it is used. Called before a run starts."""
