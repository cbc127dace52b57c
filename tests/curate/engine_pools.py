"""Made-up vectors for the tests of grouping and linking, and their slow obvious twins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from bunny.core.types import Place
from bunny.curate.columns import Rows
from bunny.curate.engines import LocalEngine

Array = npt.NDArray[np.float32]


def unit(rows: npt.NDArray[np.floating]) -> Array:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def with_duplicates(size: int, columns: int, seed: int, spread: float = 0.35) -> Array:
    """Unit rows around a few topics; half of them resemble another one more or less."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(8, columns)) + 0.5
    rows = topics[rng.integers(0, 8, size)] + rng.normal(size=(size, columns)) * 0.8
    copies = rng.integers(0, size, size // 2)
    rows[: size // 2] = rows[copies] + rng.normal(size=(size // 2, columns)) * rng.uniform(0, spread, (size // 2, 1))
    return unit(rows)


def place_in(folder: Path) -> Place:
    return Place(folder, LocalEngine())


def on_disk(rows: Array, folder: Path, cuts: tuple[int, ...], kind: type = np.float32) -> Rows:
    """The rows in several files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, part in enumerate(np.split(rows.astype(kind), cuts)):
        paths.append(folder / f"{number}.npy")
        np.save(paths[-1], part)
    return Rows.files(paths)


def compared(groups: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """(N, N) which pairs share one of their (N, P) groups."""
    shared = (groups[:, None, :, None] == groups[None, :, None, :]) & (groups[:, None, :, None] >= 0)
    return shared.any((2, 3))


def dense_sets(rows: Array, groups: npt.NDArray[np.int32], above: float) -> list[int]:
    """The lowest row of each row's set, from the whole matrix of cosines, correctly rounded."""
    wide = rows.astype(np.float64)
    linked = ((wide @ wide.T).astype(np.float32) >= np.float32(above)) & compared(groups)
    label = connected_components(coo_matrix(linked), directed=False)[1]
    first = np.full(label.max(initial=-1) + 1, len(rows))
    np.minimum.at(first, label, np.arange(len(rows)))
    return first[label].tolist()
