"""A pool spoilt in known ways: the truth about every row, the same bytes every time, and what steps find of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bunny.core.recipe import make
from bunny.core.types import Sample
from bunny.study.pollute import FILE, Pollution, pollute, polluted_source
from bunny.study.pollution import found_by
from tests.test_story import pictures

CLEAN = 20


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    pictures(tmp_path / "pool.parquet", range(CLEAN))
    return tmp_path


def spoilt(pool: Path, name: str = "out", **settings: Any) -> list[dict[str, Any]]:
    folder = pool / name
    folder.mkdir()
    source = {"use": "table", "path": "pool.parquet"}
    told = pollute(source, pool, Pollution(**settings), folder)
    rows: list[dict[str, Any]] = pq.read_table(folder / FILE).to_pylist()
    assert told["rows"] == len(rows)
    return rows


def test_every_row_is_copied_and_junk_stands_beside(pool: Path) -> None:
    rows = spoilt(pool, copies=3, swapped=0.0, junk=0.1)
    kinds = [row["pollution"] for row in rows]
    assert len(rows) == CLEAN * 4 + 8
    assert [kinds.count(kind) for kind in ("", "crop", "recompressed", "recoloured")] == [CLEAN] * 4
    assert sum(kind.startswith("junk") for kind in kinds) == 8
    assert len({row["id"] for row in rows}) == len(rows)


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(pool: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        spoilt(pool, name, copies=1, seed=seed)
    a, b, c = ((pool / name / FILE).read_bytes() for name in "abc")
    assert a == b != c


def test_swapped_rows_have_the_text_of_another_and_all_others_their_own(pool: Path) -> None:
    own = {f"p{n}": row for n, row in enumerate(pq.read_table(pool / "pool.parquet").to_pylist())}
    rows = spoilt(pool, copies=1, swapped=0.5, junk=0.1)
    real = [row for row in rows if row["origin"]]
    for row in real:
        assert (row["caption"] != own[row["origin"]]["caption"]) == row["swapped"]
    assert 0.3 * len(real) < sum(row["swapped"] for row in real) <= 0.5 * len(real)
    assert not any(row["swapped"] for row in rows if not row["origin"])


def test_a_near_duplicate_is_near_and_not_the_same(pool: Path) -> None:
    rows = spoilt(pool, copies=3, swapped=0.0, junk=0.0)
    first = {row["origin"]: _pixels(row) for row in rows if row["pollution"] == ""}
    for row in rows:
        if row["pollution"]:
            change = np.abs(_pixels(row) - first[row["origin"]])
            assert 0 < change.mean() < 60


def test_the_spoilt_pool_is_a_source_whose_samples_carry_the_truth(pool: Path) -> None:
    spoilt(pool, copies=1, junk=0.1)
    samples = list(make(polluted_source(pool / "out"), "bunny.data.sources", folder=pool).read())
    assert all(isinstance(sample, Sample) for sample in samples)
    assert {"pollution", "swapped"} <= set(samples[0].meta) and samples[0].meta["words"]


def test_fewer_rows_are_drawn_first(pool: Path) -> None:
    assert len({row["origin"] for row in spoilt(pool, rows=5, copies=1, junk=0.0)}) == 5


def row(step: str, origin: str = "", pollution: str = "", swapped: bool = False) -> dict[str, Any]:
    return {"step": step, "origin": origin, "pollution": pollution, "swapped": swapped}


def test_of_a_family_one_is_wanted_no_matter_which() -> None:
    rows = [row("", "a", "crop"), row("dedup", "a"), row("dedup", "a", "recoloured"), row("dedup", "b"), row("", "c")]
    dedup, together = found_by(rows, ["dedup"])
    assert (dedup.seen, dedup.dropped, dedup.right) == (5, 3, 2)  # the only picture of b is lost
    assert dedup.recall("copies") == 1.0 and dedup.precision == pytest.approx(2 / 3)
    assert dedup.chance == pytest.approx(2 / 5)  # of all that came
    assert together.removed == dedup.removed


def test_a_step_is_judged_by_what_came_to_it() -> None:
    rows = [
        row("exact", "", "junk blank"),
        row("band", "a", "", swapped=True),
        row("", "b", "", swapped=True),
        row("", "", "junk noise"),
        row("band", "c"),
    ]
    exact, band, together = found_by(rows, ["exact", "band"])
    assert exact.recall("junk") == 0.5 and exact.recall("swapped") == 0 and exact.precision == 1
    assert band.recall("junk") == 0 and band.recall("swapped") == 0.5 and band.precision == 0.5
    assert together.dropped == 3 and together.recall("copies") is None


def _pixels(row: dict[str, Any]) -> Any:
    return np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB").resize((32, 32)), dtype=np.float64)
