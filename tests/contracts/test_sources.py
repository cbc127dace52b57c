"""Every source: what is written in its layout is read back equal, in fixed order, ids unique, no pixels decoded."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.protocols import Source
from bunny.core.recipe import make, names
from bunny.core.types import ImageRef, Rejected, Sample, Turn
from bunny.data.containers import image_bytes
from bunny.data.writers.llava_json import LlavaJson

Writer = Callable[[Sequence[Sample], Path], dict[str, Any]]
"""Writes samples in a source's layout under a folder; the block that reads them."""


def write_table(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    rows = [{"id": s.id, "image": image_bytes(s.images[0]), "caption": s.text, **s.meta} for s in samples]
    for shard in range(2):
        part = rows[shard::2] if len(rows) < 2 else rows[shard * len(rows) // 2 : (shard + 1) * len(rows) // 2]
        if part:
            pq.write_table(pa.Table.from_pylist(part), folder / f"shard-{shard}.parquet", row_group_size=2)
    return {"use": "table", "path": "shard-*.parquet", "name": "made_up"}


def write_folder(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    for sample in samples:
        picture = folder / "pictures" / sample.id
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(image_bytes(sample.images[0]))
        picture.with_suffix(".txt").write_text(sample.text + "\n", encoding="utf-8")
    return {"use": "folder", "path": "pictures", "name": "made_up"}


def write_webdataset(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for sample in samples:
            parts = {
                ".png": image_bytes(sample.images[0]),
                ".txt": sample.text.encode(),
                ".json": json.dumps(dict(sample.meta)).encode(),
            }
            for suffix, data in parts.items():
                entry = tarfile.TarInfo(sample.id.removesuffix(".png") + suffix)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return {"use": "webdataset", "path": "00000.tar", "name": "made_up"}


def write_llava(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    assert LlavaJson(file="set.json", images="pictures").write(iter(samples), folder) == []
    return {"use": "llava_json", "path": "set.json", "images": "pictures"}


WRITERS: dict[str, Writer] = {
    "table": write_table,
    "folder": write_folder,
    "webdataset": write_webdataset,
    "llava_json": write_llava,
}


def made_up(folder: Path, count: int = 7) -> list[Sample]:
    """Pairs with distinct pictures; ids that sort in their order and are valid file names."""
    folder.mkdir()
    samples = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.new("RGB", (6, 4), (number * 20, 0, 90)).save(path)
        turns = (Turn("assistant", f'Ünïcode "caption" {number}, two  spaces\nand a line'),)
        samples.append(Sample(f"id{number:03}.png", (ImageRef(str(path)),), turns, "made_up", {"width": number}))
    return samples


def comparable(sample: Sample, layout: str) -> tuple[Any, ...]:
    """What a layout can hold: a tar's key has no suffix, side-car texts no meta, LLaVA's pairs get a bare question."""
    turns = sample.turns
    if layout == "llava_json" and turns[0].role == "assistant":
        turns = (Turn("user", "<image>"), *turns)
    meta = {} if layout == "folder" else {key: sample.meta[key] for key in ("width",)}
    pictures = [image_bytes(ref) for ref in sample.images]
    return (sample.id.removesuffix(".png"), turns, sample.source, meta, pictures)


def source_of(samples: Sequence[Sample], layout: str, folder: Path) -> Source:
    folder.mkdir()
    source = make(WRITERS[layout](samples, folder), "bunny.data.sources", folder=folder)
    assert isinstance(source, Source)
    return source


def test_every_source_has_a_writer_here() -> None:
    assert set(WRITERS) == set(names("bunny.data.sources"))


@pytest.mark.parametrize("layout", WRITERS)
def test_what_is_written_is_read_back_equal_and_in_order(layout: str, tmp_path: Path) -> None:
    samples = made_up(tmp_path / "raw")
    got = list(source_of(samples, layout, tmp_path / "disk").read())
    assert all(isinstance(row, Sample) for row in got)
    assert [comparable(row, "" if layout == "llava_json" else layout) for row in got if isinstance(row, Sample)] == [
        comparable(sample, layout) for sample in samples
    ]


@pytest.mark.parametrize("layout", WRITERS)
def test_reading_twice_gives_the_same_and_ids_are_unique(layout: str, tmp_path: Path) -> None:
    source = source_of(made_up(tmp_path / "raw"), layout, tmp_path / "disk")
    first = list(source.read())
    assert first == list(source.read())
    assert len({row.id for row in first}) == len(first) == 7


@pytest.mark.parametrize("layout", WRITERS)
def test_reading_decodes_no_pixels(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(made_up(tmp_path / "raw"), layout, tmp_path / "disk")

    def never(*args: object, **options: object) -> None:
        raise AssertionError("a picture was opened")

    monkeypatch.setattr(Image, "open", never)
    assert len(list(source.read())) == 7


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty_caption"), (" \n", "empty_caption"), ("x" * 10_000_000, "caption_too_long")],
    ids=["empty", "blank", "10 MB"],
)
def test_unusable_captions_are_rejected_with_their_place(layout: str, text: str, reason: str, tmp_path: Path) -> None:
    samples = made_up(tmp_path / "raw", 3)
    samples[1] = replace(samples[1], turns=(Turn("assistant", text),))
    got = list(source_of(samples, layout, tmp_path / "disk").read())
    bad = got[1]
    assert isinstance(bad, Rejected)
    assert bad.reason == ("empty_answer" if layout == "llava_json" and reason == "empty_caption" else reason)
    assert bad.id.removesuffix(".png") == "id001"
    assert bad.where
    assert len(bad.detail) < 200
    assert [type(row) for row in got] == [Sample, Rejected, Sample]


@pytest.mark.parametrize("layout", sorted(set(WRITERS) - {"llava_json"}))
def test_a_caption_that_is_an_exported_nan_counts_as_empty(layout: str, tmp_path: Path) -> None:
    samples = made_up(tmp_path / "raw", 1)
    samples[0] = replace(samples[0], turns=(Turn("assistant", "NaN"),))
    (bad,) = source_of(samples, layout, tmp_path / "disk").read()
    assert isinstance(bad, Rejected)
    assert bad.reason == "empty_caption"


@pytest.mark.parametrize("layout", sorted(set(WRITERS) - {"folder"}))
def test_an_id_seen_before_never_comes_twice(layout: str, tmp_path: Path) -> None:
    samples = made_up(tmp_path / "raw", 3)
    samples[2] = replace(samples[2], id=samples[0].id)
    source = source_of(samples, layout, tmp_path / "disk")
    *_, last = source.read()
    if layout == "llava_json":
        assert isinstance(last, Sample)
        assert last.id == "id000.png~2"
    else:
        assert isinstance(last, Rejected)
        assert (last.id.removesuffix(".png"), last.reason) == ("id000", "duplicate_id")
        assert last.detail.startswith(f"first seen at {tmp_path / 'disk'}")


@pytest.mark.parametrize("layout", WRITERS)
def test_a_path_where_nothing_lies_is_a_user_error(layout: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such"):
        list(make({"use": layout, "path": "nowhere"}, "bunny.data.sources", folder=tmp_path).read())


@pytest.mark.parametrize("layout", WRITERS)
def test_a_misspelt_setting_names_the_right_one(layout: str) -> None:
    with pytest.raises(UserError, match="did you mean `path`"):
        make({"use": layout, "pathh": "x"}, "bunny.data.sources")
