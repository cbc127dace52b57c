"""Bytes of pictures inside Parquet files and tars: the right ones, and the file is not read again for each."""

from __future__ import annotations

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bunny.core.types import ImageRef
from bunny.data import containers
from bunny.data.containers import ImageError, image_bytes, tar_index


def parquet(path: Path, cells: list[object], rows_per_group: int = 4) -> Path:
    pq.write_table(pa.table({"image": cells}), path, row_group_size=rows_per_group)
    return path


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return path


def reason_of(ref: ImageRef) -> str:
    with pytest.raises(ImageError) as caught:
        image_bytes(ref)
    return caught.value.reason


def test_every_row_of_every_row_group_is_found(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [f"picture {row}".encode() for row in range(11)])
    got = [image_bytes(ImageRef(str(path), str(row))) for row in range(11)]
    assert got == [f"picture {row}".encode() for row in range(11)]


def test_hugging_face_cells_and_other_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"photo": [{"bytes": b"abc", "path": "x.jpg"}], "thumb": [b"t"]}), path)
    assert image_bytes(ImageRef(str(path), "0", "photo")) == b"abc"
    assert image_bytes(ImageRef(str(path), "0", "thumb")) == b"t"


def test_a_row_group_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    original = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, group: int, **options: object) -> pa.Table:
        reads.append(group)
        return original(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    path = parquet(tmp_path / "a.parquet", [bytes([row + 1]) for row in range(12)])
    for row in np.random.default_rng(0).integers(0, 12, 200):
        assert image_bytes(ImageRef(str(path), str(row))) == bytes([row + 1])
    assert sorted(reads) == [0, 1, 2]


def test_old_row_groups_leave_a_full_cache_and_come_back_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = containers._RecentGroups(2500)
    monkeypatch.setattr(containers, "_groups", lambda process: cache)
    path = parquet(tmp_path / "a.parquet", [bytes([row + 1]) * 250 for row in range(40)])
    for row in [*range(40), *range(40)]:
        assert image_bytes(ImageRef(str(path), str(row))) == bytes([row + 1]) * 250
        assert cache._bytes <= 2500
        assert cache._bytes == sum(column.nbytes for column in cache._columns.values())


def test_threads_see_the_same_bytes(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [bytes([row % 251 + 1]) * 99 for row in range(500)], rows_per_group=50)
    rows = np.random.default_rng(0).integers(0, 500, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda row: image_bytes(ImageRef(str(path), str(row))), rows))
    assert got == [bytes([row % 251 + 1]) * 99 for row in rows]


def test_a_file_written_again_is_read_again(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [b"old"])
    assert image_bytes(ImageRef(str(path), "0")) == b"old"
    parquet(path, [b"new"])
    os.utime(path, ns=(1, 1))
    assert image_bytes(ImageRef(str(path), "0")) == b"new"


def test_parquet_places_that_do_not_exist_have_reasons(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [b"x", None, b""])
    assert reason_of(ImageRef(str(path), "1")) == "missing_file"
    assert reason_of(ImageRef(str(path), "2")) == "empty_file"
    assert reason_of(ImageRef(str(path), "3")) == "damaged"
    assert reason_of(ImageRef(str(path), "-1")) == "damaged"
    assert reason_of(ImageRef(str(path), "one")) == "damaged"
    assert reason_of(ImageRef(str(path), "0", "photo")) == "damaged"
    assert reason_of(ImageRef(str(tmp_path / "no.parquet"), "0")) == "missing_file"


def test_a_damaged_parquet_file_is_an_image_error(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [b"x" * 1000] * 20)
    path.write_bytes(path.read_bytes()[:300])
    assert reason_of(ImageRef(str(path), "0")) == "damaged"


def test_a_picture_above_the_byte_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_BYTES", 10)
    (tmp_path / "a.png").write_bytes(b"x" * 11)
    assert reason_of(ImageRef(str(tmp_path / "a.png"))) == "too_large"
    assert reason_of(ImageRef(str(parquet(tmp_path / "a.parquet", [b"x" * 11])), "0")) == "too_large"
    assert reason_of(ImageRef(str(tar(tmp_path / "a.tar", {"a.jpg": b"x" * 11})), "a.jpg")) == "too_large"


def test_tar_index_are_found_by_name(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"0.jpg": b"zero", "sub/1.jpg": b"one"})
    assert image_bytes(ImageRef(str(path), "sub/1.jpg")) == b"one"
    assert reason_of(ImageRef(str(path), "2.jpg")) == "missing_file"


def test_a_tar_that_breaks_off_keeps_its_whole_members(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"0.jpg": b"zero", "1.jpg": b"1" * 5000})
    path.write_bytes(path.read_bytes()[:3000])
    index = tar_index(path)
    assert list(index.members) == ["0.jpg"]
    assert index.problem == "breaks off inside `1.jpg`"
    assert image_bytes(ImageRef(str(path), "0.jpg")) == b"zero"


def test_members_of_one_name_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as file:
        for data in (b"first", b"second"):
            entry = tarfile.TarInfo("0.jpg")
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    assert tar_index(path).repeated == ["0.jpg"]
    assert image_bytes(ImageRef(str(path), "0.jpg")) == b"first"
