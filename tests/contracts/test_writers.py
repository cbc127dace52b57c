"""Every writer: the same samples give the same bytes, a killed export goes on, nothing is lost in silence."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.protocols import Writer
from bunny.core.recipe import make, names
from bunny.core.types import ImageRef, Sample, Turn
from bunny.data.writers import _shards

BLOCKS: dict[str, dict[str, Any]] = {
    "llava_json": {},
    "webdataset": {"samples_per_shard": 3},
    "parquet": {"samples_per_shard": 3},
    "datacomp_uids": {},
    "ids": {},
}
WITH_PICTURES = ("llava_json", "webdataset", "parquet")


def writer(name: str) -> Writer:
    made = make({"use": name, **BLOCKS[name]}, "bunny.data.writers")
    assert isinstance(made, Writer)
    return made


def uid(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Eight pairs, each with a picture of its own."""
    (tmp_path / "raw").mkdir()
    made = []
    for number in range(8):
        path = tmp_path / "raw" / f"{number}.png"
        Image.new("RGB", (6, 4), (number * 20, 0, 90)).save(path)
        turns = (Turn("assistant", f'Ünïcode "caption" {number}'),)
        made.append(Sample(uid(number), (ImageRef(str(path)),), turns, "made_up", {"number": number}))
    return made


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that was written, without the writers' own notes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != _shards.JOURNAL)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_writer_is_tried_here() -> None:
    assert set(BLOCKS) == set(names("bunny.data.writers"))


@pytest.mark.parametrize("name", BLOCKS)
def test_the_same_samples_give_the_same_bytes(name: str, samples: list[Sample], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert writer(name).write(iter(samples), tmp_path / folder) == []
    assert contents(tmp_path / "one") == contents(tmp_path / "two") != {}


@pytest.mark.parametrize("name", BLOCKS)
def test_an_export_that_broke_off_ends_as_one_that_did_not(name: str, samples: list[Sample], tmp_path: Path) -> None:
    def breaks() -> Iterator[Sample]:
        yield from samples[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer(name).write(breaks(), tmp_path / "broken")
    writer(name).write(iter(samples), tmp_path / "broken")
    writer(name).write(iter(samples), tmp_path / "whole")
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", BLOCKS)
def test_fewer_samples_leave_nothing_of_more_in_the_lists(name: str, samples: list[Sample], tmp_path: Path) -> None:
    writer(name).write(iter(samples), tmp_path / "again")
    writer(name).write(iter(samples[:2]), tmp_path / "again")
    writer(name).write(iter(samples[:2]), tmp_path / "fresh")
    lists = {file: data for file, data in contents(tmp_path / "again").items() if not file.startswith("images/")}
    assert lists.items() <= contents(tmp_path / "fresh").items()


@pytest.mark.parametrize("name", BLOCKS)
def test_no_samples_are_no_error(name: str, tmp_path: Path) -> None:
    assert writer(name).write(iter([]), tmp_path / "none") == []


@pytest.mark.parametrize("name", WITH_PICTURES)
def test_an_unreadable_picture_is_listed_the_rest_is_written(name: str, samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "raw" / "1.png").write_bytes(b"no picture")
    (tmp_path / "raw" / "7.png").unlink()
    for _ in range(2):  # the second time from what the first one noted
        rejected = writer(name).write(iter(samples), tmp_path / "out")
        assert [(one.id, one.reason) for one in rejected] == [(uid(1), "not_a_picture"), (uid(7), "missing_file")]
        assert str(tmp_path / "raw" / "1.png") in rejected[0].where
    assert any(path.is_file() for path in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("name", WITH_PICTURES)
def test_a_picture_that_came_back_is_written_after_all(name: str, samples: list[Sample], tmp_path: Path) -> None:
    picture = tmp_path / "raw" / "1.png"
    data = picture.read_bytes()
    picture.unlink()
    assert len(writer(name).write(iter(samples), tmp_path / "out")) == 1
    picture.write_bytes(data)
    assert writer(name).write(iter(samples), tmp_path / "out") == []
    writer(name).write(iter(samples), tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", BLOCKS)
def test_a_full_disk_is_told_and_leaves_no_halves(
    name: str, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"No space left on device; make room"):
        writer(name).write(iter(samples), tmp_path / "out")
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize("name", ["webdataset", "parquet"])
def test_a_finished_shard_is_not_written_again(name: str, samples: list[Sample], tmp_path: Path) -> None:
    writer(name).write(iter(samples), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("0*")}
    changed = [*samples[:6], replace(samples[6], turns=(Turn("assistant", "another"),)), samples[7]]
    writer(name).write(iter(changed), tmp_path / "out")
    again = {path.name[:5] for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert again == {"00002"}


@pytest.mark.parametrize("name", ["webdataset", "parquet"])
def test_a_shard_that_was_cut_or_lost_is_written_again(name: str, samples: list[Sample], tmp_path: Path) -> None:
    writer(name).write(iter(samples), tmp_path / "out")
    whole = contents(tmp_path / "out")
    cut, lost = sorted(path for path in (tmp_path / "out").glob("*") if path.suffix in (".tar", ".parquet"))[:2]
    cut.write_bytes(b"half")
    lost.unlink()
    with (tmp_path / "out" / _shards.JOURNAL).open("a") as journal:
        journal.write('{"shard": "000')
    writer(name).write(iter(samples), tmp_path / "out")
    assert contents(tmp_path / "out") == whole
    writer(name).write(iter(samples[:1]), tmp_path / "out")
    assert {file[:5] for file in contents(tmp_path / "out")} == {"00000"}
