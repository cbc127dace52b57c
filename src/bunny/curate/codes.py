"""Vectors as bytes: float32 rows in, int8 codes with a bound on what they leave out and exact products of codes out.

A product of codes is an integer: 8-bit instructions and float32 (exact below 2**24) give the same one, so the faster
of both is taken and never shows. `Quantiser.bounds` says how far a likeness taken from codes can be from the true one.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.types import FloatArray, IntArray
from bunny.curate import kernels

EXACT_COLUMNS = 1040  # 1040 * 127 * 127 < 2**24: float32 sums of that many code products are exact
FINEST = 16_384.0  # code units per unit of length at most: likenesses stay within 32 bits
ROUNDING = 1e-6
LEAST_ROWS = 17  # torch._int_mm wants more than 16 rows

Codes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Encoded:
    """codes: (N, D) int8. error, length, along: (N,) float32, see `kernels.encode`."""

    codes: Codes
    error: FloatArray
    length: FloatArray
    along: FloatArray

    @staticmethod
    def empty(rows: int, columns: int) -> Encoded:
        """To be filled."""
        return Encoded(np.empty((rows, columns), np.int8), *(np.empty(rows, np.float32) for _ in range(3)))

    def of(self, rows: slice) -> Encoded:
        """A view of some rows."""
        return Encoded(self.codes[rows], self.error[rows], self.length[rows], self.along[rows])


@dataclass(frozen=True, slots=True)
class Quantiser:
    """mean: (D,) float32, subtracted first. scale: code units per unit of length."""

    mean: FloatArray
    scale: float

    @staticmethod
    def fit(sample: FloatArray) -> Quantiser:
        """For rows like those of (n, D) `sample`: all but one value in 20,000 fit into ±127, and 15 % to spare."""
        sample = sample[np.isfinite(sample).all(1)]
        if not len(sample):
            return Quantiser(np.zeros(sample.shape[1], np.float32), 127.0)
        mean = sample.mean(0, dtype=np.float64).astype(np.float32)
        size = np.abs((sample[:20_000] - mean).ravel()[:: max(1, len(sample[:20_000]) // 3_000)])
        place = min(len(size) - 1, int(len(size) * 0.99995))
        widest = float(np.partition(size, place)[place]) * 1.15
        return Quantiser(mean, float(np.float32(127.0 / max(widest, 127.0 / FINEST))))

    @staticmethod
    def around(rows: FloatArray) -> Quantiser:
        """For these (n, D) rows and no others, which are alike: what sets them apart from their mean fits into ±127."""
        mean = rows.mean(0, dtype=np.float64).astype(np.float32)
        widest = max(float(np.abs(rows - mean).max(initial=0)), 127.0 / FINEST)
        return Quantiser(mean, float(np.float32(127.0 / widest)))

    @property
    def unit(self) -> float:
        """Code units of a likeness of one."""
        return float(np.float32(self.scale)) ** 2

    def encode(self, rows: FloatArray, into: Encoded | None = None) -> Encoded:
        """Codes of (N, D) float32 rows; fresh ones, or written into those given."""
        found = into or Encoded.empty(*rows.shape)
        kernels.encode(rows, self.mean, np.float32(self.scale), found.codes, found.error, found.length, found.along)
        return found

    def bounds(self, error: FloatArray, length: FloatArray, along: FloatArray) -> tuple[IntArray, IntArray]:
        """(N,) int32 each: what to add to a product of codes per row to get a likeness in code units, and by how much
        it may be off per row, for any two of these rows.

        With x = m + y, y = q/s + e: x·x' = q·q'/s² + x·m + x'·m - m·m + (e·y' + e'·y - e·e'). ROUNDING stands for the
        float32 sums in all of that.
        """
        half = float((self.mean.astype(np.float64) ** 2).sum()) / 2
        shift = np.rint((along.astype(np.float64) - half) * self.unit).astype(np.int32)
        widest = float(length.max(initial=0)) + float(error.max(initial=0))
        slack = np.ceil((error.astype(np.float64) * widest * 1.0001 + ROUNDING) * self.unit).astype(np.int32) + 2
        return shift, slack


def products(left: Codes, right: Codes, kernel: str | None = None) -> npt.NDArray[np.int32]:
    """(n, m) int32 products of (n, D) and (m, D) codes, good until this thread's next call (one buffer for all).

    kernel: `int8`, `float32`; None: the faster one here.
    """
    import torch

    one, other = torch.from_numpy(left), torch.from_numpy(right)
    kernel = kernel or fastest_kernel(left.shape[1])
    if kernel == "int8" and len(left) >= LEAST_ROWS:
        found = _buffer(len(left), len(right))
        torch._int_mm(one, other.T, out=found)
        return found.numpy()  # type: ignore[no-any-return]
    total: Any = 0
    for start in range(0, left.shape[1], EXACT_COLUMNS):
        part = slice(start, start + EXACT_COLUMNS)
        total = total + (one[:, part].float() @ other[:, part].float().T).int()
    return total.numpy()  # type: ignore[no-any-return]


_own = threading.local()


def _buffer(rows: int, columns: int) -> Any:
    """(rows, columns) int32 of this thread's buffer: a fresh one each time would cost more than it holds."""
    import torch

    held = getattr(_own, "held", None)
    if held is None or held.numel() < rows * columns:
        held = _own.held = torch.empty(max(rows * columns, 1 << 20), dtype=torch.int32)
    return held[: rows * columns].view(rows, columns)


@lru_cache(maxsize=8)
def fastest_kernel(columns: int) -> str:
    """`int8` where 8-bit products are there, right, and faster than float32."""
    rng = np.random.default_rng(0)
    left, right = (rng.integers(-127, 128, (512, columns), dtype=np.int8) for _ in range(2))
    seconds = {}
    expected = products(left, right, "float32").copy()
    for kernel in ("float32", "int8"):
        try:
            if not np.array_equal(products(left, right, kernel), expected):
                continue
        except (RuntimeError, AttributeError):  # this build of torch has no 8-bit products
            continue
        start = time.perf_counter()
        for _ in range(3):
            products(left, right, kernel)
        seconds[kernel] = time.perf_counter() - start
    return min(seconds, key=lambda kernel: seconds[kernel])
