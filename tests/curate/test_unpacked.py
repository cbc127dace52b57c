"""Vectors inside other files are unpacked into the pool: where the data lie nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bunny.curate.engines import LocalEngine
from bunny.curate.pool import PoolFolder
from bunny.pipeline.estimating import vector_lengths
from bunny.pipeline.pool_tasks import pool_of

UIDS = [f"{n:032x}" for n in range(3)]


def two_tables(folder: Path) -> dict[str, Any]:
    for number, name in enumerate(("a", "b")):  # files of one name
        vectors = pa.array([[1.0, number, row] for row in range(3)], pa.list_(pa.float32()))
        ids = [f"{name}{row}" for row in range(3)]
        table = pa.table({"id": ids, "caption": ["red"] * 3, "image_emb": vectors, "image": pa.nulls(3)})
        (folder / name).mkdir(parents=True)
        pq.write_table(table, folder / name / "0.parquet")
    return {"use": "table", "path": str(folder), "vectors": {"image": "image_emb"}, "image": None}


def archive(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    pq.write_table(pa.table({"uid": UIDS, "text": ["red"] * 3}), folder / "0.parquet")
    np.savez(folder / "0.npz", l14_img=np.eye(3, dtype=np.float16), l14_txt=np.eye(3, dtype=np.float16))
    return {"use": "datacomp", "path": str(folder)}


def made(source: dict[str, Any], output: Path) -> PoolFolder:
    return pool_of(source, output.parent, None, output, LocalEngine(), threads=1)


@pytest.mark.parametrize("write", [two_tables, archive])
def test_nothing_is_written_beside_the_data(write: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "in")
    before = sorted((tmp_path / "in").rglob("*"))
    vector_lengths(source, tmp_path)
    pool = made(source, tmp_path / "pool").pool()
    assert sorted((tmp_path / "in").rglob("*")) == before
    assert len(pool) == len(np.unique(pool["image"].read(), axis=0))


@pytest.mark.parametrize("write", [two_tables, archive])
def test_the_pool_is_the_same_one_elsewhere_and_afterwards(write: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "in")
    first = made(source, tmp_path / "pool").info["key"]
    assert made(source, tmp_path / "pool").info["key"] == first
    other = made(source, tmp_path / "other")
    assert [part.name for part in other.parts] == [part.name for part in PoolFolder(tmp_path / "pool").parts]


def test_a_pool_with_unpacked_vectors_can_be_moved(tmp_path: Path) -> None:
    made(archive(tmp_path / "in"), tmp_path / "pool")
    (tmp_path / "pool").rename(tmp_path / "moved")
    assert PoolFolder(tmp_path / "moved").pool()["image"].read().tolist() == np.eye(3).tolist()
