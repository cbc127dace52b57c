"""A row of the parity table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Row:
    """difference: the largest over all items compared (for exact checks: how many differ). note: what was left out."""

    folder: str
    check: str
    difference: float
    tolerance: float
    compared: int
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.compared > 0 and self.difference <= self.tolerance  # NaN is not ok

    @property
    def line(self) -> str:
        word = "ok  " if self.ok else "FAIL"
        figures = f"{self.difference:9.2g} ≤ {self.tolerance:<7.2g} {self.compared:5d}"
        return f"{word} {self.folder:16} {self.check:38} {figures} {self.note}".rstrip()


def largest(one: Any, other: Any) -> float:
    """The largest absolute difference of two arrays of one shape; infinite for other shapes."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(np.abs(one - other).max()) if one.shape == other.shape and one.size else float("inf")
