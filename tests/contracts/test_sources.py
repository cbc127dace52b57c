"""Every source: what is written in its layout is read back equal, in fixed order, ids unique, no pixels decoded; its
shards read what it reads; its vectors are those of its rows; a file that is cut is named; moving it changes no id."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.protocols import HasVectors, Sharded, Source
from bunny.core.recipe import make, names
from bunny.core.types import ImageRef, Rejected, Sample, Turn
from bunny.data.containers import image_bytes
from bunny.data.writers.llava_json import LlavaJson

Writer = Callable[[Sequence[Sample], Path], dict[str, Any]]
"""Writes samples in a source's layout under a folder; the block that reads them."""


def halves(samples: Sequence[Sample]) -> Iterator[tuple[int, Sequence[Sample]]]:
    """Two shards, or one of a single sample."""
    middle = len(samples) // 2
    yield from ((number, part) for number, part in enumerate((samples[:middle], samples[middle:])) if part)


def vectors_of(sample: Sample) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Image and text vector that belong to the sample's id and to no other."""
    found = re.search(r"\d+", sample.id)
    assert found
    both = np.random.default_rng(int(found[0])).normal(size=(2, 8))
    image, text = (both / np.linalg.norm(both, axis=1, keepdims=True)).astype(np.float16)
    return image, text


def cosine(sample: Sample) -> float:
    image, text = vectors_of(sample)
    return float(image.astype(float) @ text.astype(float))


def key(sample: Sample) -> str:
    return sample.id.removesuffix(".png")


def write_tar(path: Path, samples: Sequence[Sample], **more: Callable[[Sample], str]) -> None:
    """A webdataset shard; more: further keys of the JSON members."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            facts = {**sample.meta, **{name: value(sample) for name, value in more.items()}}
            parts = {
                ".png": image_bytes(sample.images[0]),
                ".txt": sample.text.encode(),
                ".json": json.dumps(facts).encode(),
            }
            for suffix, data in parts.items():
                entry = tarfile.TarInfo(key(sample) + suffix)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def write_table(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    for shard, part in halves(samples):
        rows = [{"id": s.id, "image": image_bytes(s.images[0]), "caption": s.text, **s.meta} for s in part]
        table = pa.Table.from_pylist(rows)
        for at, name in enumerate(("img_emb", "text_emb")):
            cells = pa.FixedSizeListArray.from_arrays(np.concatenate([vectors_of(s)[at] for s in part]), 8)
            table = table.append_column(name, cells)
        pq.write_table(table, folder / f"shard-{shard}.parquet", row_group_size=2)
    vectors = {"image": "img_emb", "text": "text_emb"}
    return {"use": "table", "path": "shard-*.parquet", "name": "made_up", "vectors": vectors}


def write_folder(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    for sample in samples:
        picture = folder / "pictures" / sample.id
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(image_bytes(sample.images[0]))
        picture.with_suffix(".txt").write_text(sample.text + "\n", encoding="utf-8")
    return {"use": "folder", "path": "pictures", "name": "made_up"}


def write_webdataset(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    for shard, part in halves(samples):
        write_tar(folder / f"{shard:05}.tar", part)
    return {"use": "webdataset", "path": ".", "name": "made_up"}


def write_img2dataset(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    for shard, part in halves(samples):
        write_tar(folder / f"{shard:05}.tar", part[::-1])
        got = {"status": "success", "error_message": None}
        rows = [{"key": key(s), "url": f"http://x/{s.id}", "caption": s.text, **got, **s.meta} for s in part]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05}.parquet")
        (folder / f"{shard:05}_stats.json").write_text(json.dumps({"count": len(part), "successes": len(part)}))
    return {"use": "img2dataset", "path": ".", "name": "made_up"}


def write_embeddings(
    samples: Sequence[Sample], folder: Path, name: Callable[[str, int], str], more: Callable[[Sample], dict[str, Any]]
) -> None:
    for shard, part in halves(samples):
        for at, kind in enumerate(("img_emb", "text_emb")):
            path = folder / name(kind, shard)
            path.parent.mkdir(exist_ok=True)
            np.save(path, np.stack([vectors_of(sample)[at] for sample in part]))
        rows = [{"image_path": key(s), "caption": s.text, **more(s), **s.meta} for s in part]
        path = folder / name("metadata", shard).replace(".npy", ".parquet")
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    write_tar(folder / "shards" / "00000.tar", samples[::-1])


def write_clip_retrieval(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    write_embeddings(samples, folder, lambda kind, shard: f"{kind}/{kind}_{shard}.npy", lambda sample: {})
    return {"use": "clip_retrieval", "path": ".", "images": "shards", "name": "made_up"}


def write_laion(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    def more(sample: Sample) -> dict[str, Any]:
        return {"similarity": cosine(sample), "NSFW": "UNLIKELY", "url": f"http://x/{sample.id}"}

    write_embeddings(samples, folder, lambda kind, shard: f"{kind}_{shard:04}.npy", more)
    return {"use": "laion", "path": ".", "images": "shards", "name": "made_up"}


def write_datacomp(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    (folder / "metadata").mkdir()
    for shard, part in halves(samples):
        rows = [{"uid": key(s), "text": s.text, "clip_l14_similarity_score": cosine(s), **s.meta} for s in part]
        pq.write_table(pa.Table.from_pylist(rows), folder / "metadata" / f"{shard:04}.parquet")
        image, text = (np.stack([vectors_of(sample)[at] for sample in part]) for at in (0, 1))
        save = (np.savez, np.savez_compressed)[shard]
        save(
            folder / "metadata" / f"{shard:04}.npz",
            b32_img=image[:, :4],
            b32_txt=text[:, :4],
            l14_img=image,
            l14_txt=text,
        )
        write_tar(folder / "shards" / f"{shard:08}.tar", part[::-1], uid=key)
    return {"use": "datacomp", "path": "metadata", "images": "shards", "name": "made_up"}


def write_hf_dataset(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    """As `Dataset.save_to_disk` does; tests/golden/hf_dataset was written by the library itself."""
    files = []
    for shard, part in halves(samples):
        rows = [
            {"id": s.id, "image": {"bytes": image_bytes(s.images[0]), "path": None}, "caption": s.text, **s.meta}
            for s in part
        ]
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        kinds = [("id", pa.string()), ("image", image), ("caption", pa.string()), ("width", pa.int64())]
        table = pa.Table.from_pylist(rows, schema=pa.schema(kinds))
        files.append({"filename": f"data-{shard:05}-of-00002.arrow"})
        with pa.ipc.new_stream(folder / files[-1]["filename"], table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_fingerprint": "0"}))
    (folder / "dataset_info.json").write_text("{}")
    return {"use": "hf_dataset", "path": ".", "name": "made_up"}


def write_llava(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    assert LlavaJson(file="set.json", images="pictures").write(iter(samples), folder) == []
    return {"use": "llava_json", "path": "set.json", "images": "pictures"}


WRITERS: dict[str, Writer] = {
    "table": write_table,
    "folder": write_folder,
    "webdataset": write_webdataset,
    "img2dataset": write_img2dataset,
    "clip_retrieval": write_clip_retrieval,
    "laion": write_laion,
    "datacomp": write_datacomp,
    "hf_dataset": write_hf_dataset,
    "llava_json": write_llava,
}


SHARDED = sorted(set(WRITERS) - {"llava_json"})
WITH_VECTORS = ("table", "clip_retrieval", "laion", "datacomp")
CONTAINERS = (".tar", ".parquet", ".npy", ".npz", ".arrow", ".json")


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


def _block(layout: str, folder: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    """The block that reads what the layout's writer writes."""
    again = folder / "again"
    again.mkdir()
    return WRITERS[layout](samples, again)


def one_process_on(block: Mapping[str, Any]) -> Any:
    """The source of a shard's block, as another process would make it."""
    return make(json.loads(json.dumps(block)), "bunny.data.sources")


@pytest.mark.parametrize("layout", SHARDED)
def test_the_shards_together_read_what_the_source_reads(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(made_up(tmp_path / "raw"), layout, tmp_path / "disk")
    assert isinstance(source, Sharded)
    whole = list(source.read())
    blocks = source.shards()
    assert len(blocks) == (1 if layout == "folder" else 2)
    monkeypatch.chdir("/")
    assert [row for block in blocks for row in one_process_on(block).read()] == whole
    assert [list(one_process_on(block).shards()) for block in blocks] == [[block] for block in blocks]


@pytest.mark.parametrize("layout", WITH_VECTORS)
def test_the_vectors_of_a_shard_are_those_of_its_rows(layout: str, tmp_path: Path) -> None:
    source = source_of(made_up(tmp_path / "raw"), layout, tmp_path / "disk")
    assert isinstance(source, Sharded)
    met = 0
    for block in source.shards():
        shard = one_process_on(block)
        assert isinstance(shard, HasVectors)
        stored, rows = shard.stored(), list(shard.read())
        assert set(stored) == {"image", "text"}
        for at, name in enumerate(("image", "text")):
            vectors = np.load(stored[name].path, mmap_mode="r")
            numbers = stored[name].rows
            for place, row in enumerate(rows):
                assert isinstance(row, Sample)
                place = place if numbers is None else int(numbers[place])
                assert (vectors[place] == vectors_of(row)[at]).all()
                met += 1
    assert met == 14


@pytest.mark.parametrize("layout", WITH_VECTORS)
def test_a_source_of_several_pieces_has_no_vectors_of_its_own(layout: str, tmp_path: Path) -> None:
    source = source_of(made_up(tmp_path / "raw"), layout, tmp_path / "disk")
    assert isinstance(source, HasVectors)
    with pytest.raises(UserError, match="ask its shards"):
        source.stored()


@pytest.mark.parametrize("layout", WRITERS)
def test_moving_the_folder_changes_no_id_and_no_order(layout: str, tmp_path: Path) -> None:
    samples = made_up(tmp_path / "raw")
    before = [row.id for row in source_of(samples, layout, tmp_path / "disk").read()]
    (tmp_path / "far" / "away").mkdir(parents=True)
    shutil.copytree(tmp_path / "disk", tmp_path / "far" / "away" / "copy")
    moved = make(_block(layout, tmp_path, samples), "bunny.data.sources", folder=tmp_path / "far" / "away" / "copy")
    assert [row.id for row in moved.read()] == before


@pytest.mark.parametrize("layout", sorted(set(WRITERS) - {"folder"}))
def test_a_file_that_is_cut_anywhere_is_named_and_never_silent(layout: str, tmp_path: Path) -> None:
    samples = made_up(tmp_path / "raw", 4)
    whole = list(source_of(samples, layout, tmp_path / "disk").read())
    files = [path.relative_to(tmp_path / "disk") for path in sorted((tmp_path / "disk").rglob("*"))]
    block = _block(layout, tmp_path, samples)
    for file in files:
        optional = file.name in ("dataset_info.json",) or file.name.endswith("_stats.json")
        hidden = any(part.startswith(".") for part in file.parts)
        if file.suffix not in CONTAINERS or optional or hidden:
            continue
        size = (tmp_path / "disk" / file).stat().st_size
        for cut in sorted({0, 1, 7, 100, size // 3, size // 2, size - 600, size - 9, size - 1} & set(range(size))):
            shutil.rmtree(tmp_path / "cut", ignore_errors=True)
            shutil.copytree(tmp_path / "disk", tmp_path / "cut", ignore=shutil.ignore_patterns(".*"))
            (tmp_path / "cut" / file).write_bytes((tmp_path / "disk" / file).read_bytes()[:cut])
            told, kept = _read_of_cut(block, tmp_path / "cut")
            lost = len(whole) - kept
            assert any(file.stem in words for words in told) or not lost, (file, cut, told)


def _read_of_cut(block: dict[str, Any], folder: Path) -> tuple[list[str], int]:
    """What is said of a damaged folder, and how many samples are left of it."""
    try:
        source = make(block, "bunny.data.sources", folder=folder)
        rows = list(source.read())
        for shard in source.shards() if isinstance(source, Sharded) else ():
            one = one_process_on(shard)
            if isinstance(one, HasVectors):
                one.stored()
    except UserError as error:
        return [str(error)], 0
    bad = [f"{row.where} {row.reason} {row.detail}" for row in rows if isinstance(row, Rejected)]
    return bad, len(rows) - len(bad)
