"""How fast answers are given: counters for an operator, and when the next place may be free."""

from __future__ import annotations

import time
from collections import Counter
from typing import get_args

from bunny.core.chat import Ended
from bunny.infer.row import Row

RECENT = 16
"""Ends of answers whose rate counts."""


class Pace:
    """Written by the engine's thread, read by any."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter(dict.fromkeys(get_args(Ended), 0))
        self.prompt_tokens = self.completion_tokens = self.cached_tokens = self.steps = self.rows = 0
        self.step_seconds = 0.0
        self._ends: list[float] = []

    def step(self, rows: int, seconds: float) -> None:
        """A pass over so many rows took so long."""
        self.steps += 1
        self.rows += rows
        self.step_seconds += seconds

    def end(self, row: Row, reason: Ended) -> None:
        """A row has left."""
        self.ended[reason] += 1
        self.prompt_tokens += row.prompt_tokens
        self.completion_tokens += row.given
        self.cached_tokens += row.cached
        self._ends = [*self._ends[1 - RECENT :], time.monotonic()]

    @property
    def seconds_a_request(self) -> float:
        """Mean time between the last ends, at most a minute; 1 where it is not known."""
        ends = self._ends
        if len(ends) < 2:
            return 1.0
        return min(60.0, max(0.1, (time.monotonic() - ends[0]) / (len(ends) - 1)))
