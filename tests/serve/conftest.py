"""A finished curation of made-up coloured squares on disk, and what answers questions about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bunny.core.types import FloatArray, ImageRef, IntArray, Sample
from bunny.curate.explore import Decisions, Explorer, Overrides

ROWS = 12


class Squares:
    """A pool of two heaps of colours; picture files lie in a folder."""

    def __init__(self, folder: Path, rows: int = ROWS) -> None:
        self.folder, self.rows = folder, rows
        rng = np.random.default_rng(0)
        heap = np.where(np.arange(rows)[:, None] % 2, [1.0, 0.1, 0.1], [0.1, 0.1, 1.0])
        found = heap + rng.normal(0, 0.05, (rows, 3))
        self.unit = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    def __len__(self) -> int:
        return self.rows

    def vectors(self, rows: IntArray) -> FloatArray:
        return self.unit[rows]

    def samples(self, rows: IntArray) -> list[Sample]:
        return [Sample.pair(f"s{row:02d}", ImageRef(str(self.folder / f"{row}.png")), f"square {row}") for row in rows]


@pytest.fixture
def squares(tmp_path: Path) -> Squares:
    for row in range(ROWS - 1):  # the last one's picture is gone
        Image.new("RGB", (300, 200), (20 * row, 80, 240 - 20 * row)).save(tmp_path / f"{row}.png")
    return Squares(tmp_path)


def decisions() -> dict[str, pa.Array]:
    """Twelve rows of the pool and one that could not be read. s01, s03, s05 are a duplicate group: s03 stays, s05 is
    less like it than the threshold asks. s07 is out of a band."""
    step = [""] * ROWS + ["reading"]
    reason = [""] * ROWS + ["damaged"]
    step[1] = step[5] = "dedup"
    reason[1] = reason[5] = "near duplicate"
    step[7], reason[7] = "band", "among the lowest"
    twin = [None] * (ROWS + 1)
    twin[1] = twin[5] = "s03"
    cosine = np.full(ROWS + 1, np.nan, np.float32)
    cosine[1], cosine[5] = 0.97, 0.90
    link, link_to = np.full(ROWS + 1, np.nan, np.float32), [None] * (ROWS + 1)
    link[3], link_to[3] = 0.97, "s01"
    link[5], link_to[5] = 0.955, "s03"
    link[9], link_to[9] = 0.90, "s03"
    cluster = [row % 2 for row in range(ROWS)] + [None]
    group = [20 + row for row in range(ROWS)] + [None]
    group[1] = group[3] = group[5] = 21
    return {
        "id": pa.array([f"s{row:02d}" for row in range(ROWS)] + ["broken"]),
        "kept": pa.array([not word for word in step]),
        "step": pa.array(step),
        "reason": pa.array(reason),
        "twin": pa.array(twin, pa.string()),
        "twin_kept": pa.array([None if one is None else True for one in twin], pa.bool_()),
        "twin_cosine": pa.array(cosine, from_pandas=True),
        "source": pa.array(["red" if row % 2 else "blue" for row in range(ROWS)] + [None]),
        "caption": pa.array([f"Square {row} <b>" for row in range(ROWS)] + [None]),
        "pair_cosine": pa.array([row / 10 for row in range(ROWS)] + [None], pa.float32()),
        "cluster": pa.array(cluster, pa.int32()),
        "component": pa.array(group, pa.int32()),
        "link_cosine": pa.array(link, from_pandas=True),
        "link_to": pa.array(link_to, pa.string()),
    }


FACTS = {
    "embedder": "colours",
    "steps": [
        {"step": "dedup", "settings": {"use": "dedup", "above": 0.95}},
        {"step": "band", "settings": {"use": "band", "by": "pair_cosine", "high": 0.9}},
    ],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    pq.write_table(pa.table(decisions()), folder / "decisions.parquet", row_group_size=5)
    (folder / "summary.json").write_text(json.dumps(FACTS))
    return folder


@pytest.fixture
def opened(run: Path, squares: Squares) -> Callable[[], Explorer]:
    """Opens the run, as often as one likes."""

    def explorer() -> Explorer:
        return Explorer(Decisions(run / "decisions.parquet"), Overrides(run / "overrides.jsonl"), FACTS, squares)

    return explorer


@pytest.fixture
def explorer(opened: Callable[[], Explorer]) -> Explorer:
    return opened()
