"""The decision table: every sample once, block by block, the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bunny.core.types import Decision, Pool, Rejected
from bunny.curate.columns import Texts
from bunny.curate.engine import Selection, StepRun
from bunny.curate.plan import plan
from bunny.curate.table import write_table

PLAN = plan([{"use": "sample", "count": 1}, {"use": "exact"}])


def run(number: int, rows: list[int], reasons: list[str], twin: list[int], **columns: Any) -> StepRun:
    keep = np.array([not reason for reason in reasons])
    made = {name: np.asarray(values) for name, values in columns.items()}
    return StepRun(PLAN[number], np.array(rows), Decision(keep, np.array(reasons, object), np.array(twin), made), 0.1)


@pytest.fixture
def selection() -> Selection:
    """a falls to the first step; the second saw b, c, d, linked d to b, and dropped d in favour of b."""
    turn = np.radians([0.0, 10.0, 50.0, 12.0])
    visual = np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)
    ids = Texts([pa.array(["a", "b"]), pa.array(["c", "d"])])
    captions = Texts([pa.array(["one", "two"]), pa.array(["three", "fo\u00fcr"])])
    score = np.array([1.0, np.nan, 3.0, 4.0], np.float32)
    pool = Pool({"id": ids, "caption": captions, "visual": visual, "score": score}, ordered=True)
    second = run(
        1,
        [1, 2, 3],
        ["", "", "alike"],
        [-1, -1, 0],
        component=np.array([0, 1, 0], np.int32),
        link_cosine=np.array([np.nan, np.nan, 0.9994], np.float32),
        link_to=np.array([-1, -1, 0]),
        tag=np.array(["x", "", "z"], object),
    )
    runs = (run(0, [0, 1, 2, 3], ["not drawn", "", "", ""], [-1] * 4), second)
    return Selection(pool, runs, 0, (Rejected("z", "z.png", "damaged", "cut short"),))


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def test_every_sample_has_one_row_with_its_fate(selection: Selection, tmp_path: Path) -> None:
    write_table(selection, tmp_path / "t.parquet")
    found = rows(tmp_path / "t.parquet")
    assert [row["id"] for row in found] == ["a", "b", "c", "d", "z"]
    assert [row["kept"] for row in found] == [False, True, True, False, False]
    assert [row["step"] for row in found] == ["sample", "", "", "exact", "reading"]
    assert [row["reason"] for row in found] == ["not drawn", "", "", "alike", "damaged"]
    assert [row["caption"] for row in found] == ["one", "two", "three", "fo\u00fcr", None]


def test_a_twin_and_the_row_of_a_link_are_told_by_their_ids(selection: Selection, tmp_path: Path) -> None:
    write_table(selection, tmp_path / "t.parquet")
    *_, last, rejected = rows(tmp_path / "t.parquet")
    assert (last["twin"], last["twin_kept"], last["link_to"]) == ("b", True, "b")
    assert last["twin_cosine"] == pytest.approx(np.cos(np.radians(2)), abs=1e-6)
    assert last["link_cosine"] == pytest.approx(0.9994)
    assert (rejected["twin"], rejected["twin_kept"], rejected["link_to"], rejected["score"]) == (None,) * 4


def test_what_a_row_never_came_to_is_null_and_so_is_nan(selection: Selection, tmp_path: Path) -> None:
    write_table(selection, tmp_path / "t.parquet")
    found = rows(tmp_path / "t.parquet")
    assert [row["component"] for row in found] == [None, 0, 1, 0, None]
    assert [row["score"] for row in found] == [1.0, None, 3.0, 4.0, None]
    assert [row["tag"] for row in found] == [None, "x", "", "z", None]
    assert "visual" not in found[0]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_row_groups_change_nothing_but_the_file(selection: Selection, tmp_path: Path, size: int) -> None:
    write_table(selection, tmp_path / "whole.parquet")
    write_table(selection, tmp_path / "cut.parquet", rows_per_group=size)
    assert rows(tmp_path / "cut.parquet") == rows(tmp_path / "whole.parquet")
    assert pq.ParquetFile(tmp_path / "cut.parquet").num_row_groups == -(-4 // size) + 1


def test_the_same_selection_gives_the_same_bytes(selection: Selection, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_table(selection, tmp_path / name, rows_per_group=2)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_empty_pool_has_a_table_with_its_rejected_rows(tmp_path: Path) -> None:
    pool = Pool({"id": np.empty(0, "U1"), "visual": np.empty((0, 2), np.float32)}, ordered=True)
    write_table(Selection(pool, (), 0, (Rejected("z", "", "damaged"),)), tmp_path / "t.parquet")
    assert [row["id"] for row in rows(tmp_path / "t.parquet")] == ["z"]


def test_a_failed_write_leaves_nothing(selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bunny.curate.table._rejected", lambda items: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_table(selection, tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []
