"""Which rows every optimiser step has, what they weigh in its loss, and the passes a rank computes for it.

In: the stage's rows in their order, its section. Out: `StepData`, whose item k is the packed passes of step k with
their pixels. The rows of a step are settled here and nowhere else: packing, sharing and ranks only change how they are
computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bunny.core.recipe import StageSection
from bunny.core.types import FloatArray, ImageRef, IntArray, TokenRow
from bunny.text.pack import Batch, deal

Pixels = Callable[[Sequence[ImageRef]], Tensor]
"""Pictures to pixel_values (B, 3, H, W), or to what the tower makes of them (B, N, feature width)."""


@runtime_checkable
class HasBlank(Protocol):
    """What knows the form of an empty picture itself."""

    @property
    def blank(self) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Plan(Sequence[IntArray]):  # type: ignore[misc]  # the slice form of __getitem__ is not offered
    """Row numbers of every optimiser step: the set in a given order, again for each epoch, cut at `max_steps`.

    order: (N,) int64 row numbers, or None for 0 … N-1. Step k is made when it is asked for, so seeking is free.
    """

    rows: int
    per_step: int
    steps: int
    order: IntArray | None = None

    @staticmethod
    def of(rows: int, section: StageSection, order: IntArray | None = None) -> Plan:
        """The plan of a stage with so many rows."""
        per_epoch = math.ceil(rows / section.rows_per_step)
        steps = max(1, round(per_epoch * section.epochs))
        if section.max_steps is not None:
            steps = min(steps, section.max_steps)
        return Plan(rows, section.rows_per_step, steps, order)

    def __len__(self) -> int:
        return self.steps

    @property
    def per_epoch(self) -> int:
        """Steps until the rows begin again."""
        return math.ceil(self.rows / self.per_step)

    def __getitem__(self, step: int) -> IntArray:  # type: ignore[override]
        """(rows of the step,) int64."""
        if not 0 <= step < self.steps:
            raise IndexError(step)
        first = step % self.per_epoch * self.per_step
        numbers = np.arange(first, min(first + self.per_step, self.rows))
        return numbers if self.order is None else self.order[numbers]


def row_weights(learns: Sequence[int], section: StageSection) -> FloatArray:
    """(n,) float64 weight of each label of the step's n rows, which learn so many labels each.

    tokens: all labels of the step weigh the same, wherever they are computed. rows: all rows do. micro_batches: all
    consecutive `micro_batch_rows` do, as in the original, whose loss is the mean over the tokens of a device's batch
    and whose gradients are the mean over devices and accumulated batches.
    """
    counts = np.asarray(learns, dtype=np.float64)
    if section.normalise == "tokens":
        return np.ones_like(counts)
    size = 1 if section.normalise == "rows" else section.micro_batch_rows
    starts = np.arange(0, len(counts), size)
    return np.repeat(1.0 / np.add.reduceat(counts, starts), size)[: len(counts)]


Passes = list[tuple[Batch, Tensor | None]]
"""Packed passes with their pixels, or tower features; None for words alone."""


class StepData(Dataset[tuple[float, Passes]]):
    """Item k: the packed passes of optimiser step k that this rank computes, with their pixels (or tower features)."""

    def __init__(
        self,
        rows: Sequence[TokenRow],
        plan: Sequence[IntArray],
        config: Any,
        section: StageSection,
        pixels: Pixels,
        rank: int = 0,
        ranks: int = 1,
        picture_tokens: float = 0.0,
    ) -> None:
        self.rows, self.plan, self.config, self.section, self.pixels = rows, plan, config, section, pixels
        self.rank, self.ranks, self.picture_tokens = rank, ranks, picture_tokens

    def __len__(self) -> int:
        return len(self.plan)

    def of_step(self, step: int) -> list[TokenRow]:
        """The rows of a step, on all ranks together."""
        return [self.rows[int(number)] for number in self.plan[step]]

    def __getitem__(self, step: int) -> tuple[float, Passes]:
        """(the whole step's weight over all ranks, this rank's passes)."""
        rows, config = self.of_step(step), self.config
        learns = [row.learns for row in rows]
        weights = row_weights(learns, self.section)
        mine = deal(
            rows,
            config.image_token_id,
            config.image_seq_length,
            self.section.tokens_per_pass,
            weights.tolist(),
            ranks=self.ranks,
            picture_tokens=self.picture_tokens,
        )[self.rank]
        whole = float(weights @ np.asarray(learns))
        return whole, [(batch, self._seen(batch)) for batch in mine]

    def _seen(self, batch: Batch) -> Tensor | None:
        """The pictures of a pass. Where several ranks train, a pass of words alone gets one that no position takes:
        all ranks have to call tower and projector in every pass."""
        if batch.images:
            return self.pixels(batch.images)
        return self.blank if self.ranks > 1 else None

    @property
    def blank(self) -> Tensor:
        """One empty picture, or its features."""
        if isinstance(self.pixels, HasBlank):
            return self.pixels.blank
        side = max([self.config.vision_config.image_size, *self.config.s2_scales])
        return torch.zeros(1, 3, side, side)
