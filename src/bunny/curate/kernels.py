"""The inner loops of curation, compiled by numba and cached. Rows are independent of each other in all of them, so
blocks, threads and machines do not show in the outcome."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def unit_rows(rows: Any) -> None:
    """Scale (N, D) float32 rows to length one, in place. Zero and NaN rows become or stay NaN."""
    for i in range(rows.shape[0]):
        total = np.float64(0)
        for j in range(rows.shape[1]):
            total += np.float64(rows[i, j]) * np.float64(rows[i, j])
        scale = np.float32(1.0 / np.sqrt(total)) if total > 0 else np.float32(np.nan)
        for j in range(rows.shape[1]):
            rows[i, j] *= scale
