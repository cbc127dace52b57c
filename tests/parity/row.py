"""A row of the parity table."""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
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

    def as_json(self) -> dict[str, Any]:
        """The fields and `ok`; a difference that is no number is null, as JSON has none."""
        finite = self.difference if math.isfinite(self.difference) else None
        return {**asdict(self), "difference": finite, "ok": self.ok}

    @property
    def line(self) -> str:
        word = "ok  " if self.ok else "FAIL"
        figures = f"{self.difference:9.2g} ≤ {self.tolerance:<7.2g} {self.compared:5d}"
        return f"{word} {self.folder:16} {self.check:38} {figures} {self.note}".rstrip()


def largest(one: Any, other: Any) -> float:
    """The largest absolute difference of two arrays of one shape; infinite for other shapes."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(np.abs(one - other).max()) if one.shape == other.shape and one.size else float("inf")


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """With the folder as working folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def guarded(folder: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows; what breaks on the way becomes a failed row, so that the other folders are still looked at."""
    try:
        yield from rows
    except Exception as error:  # noqa: BLE001  # shown in the row
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        yield Row(folder.name, "all checks run", float("inf"), 0, 1, f"{type(error).__name__} at {where}: {error}")
