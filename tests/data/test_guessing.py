"""A folder in a usual layout needs no source block: it is recognised, and everything in it is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Sample
from bunny.data.reading import guess_source
from tests.contracts.test_sources import WITH_VECTORS, WRITERS, cosine, made_up

GOLDEN = Path(__file__).parents[1] / "golden" / "hf_dataset"


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_is_recognised_and_read_to_the_last_row(layout: str, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    samples = made_up(tmp_path / "raw")
    WRITERS[layout](samples, tmp_path / "disk")
    block = guess_source(tmp_path / "disk")
    assert block["use"] == layout
    source = make(block, "bunny.data.sources")
    rows = list(source.read())
    assert [type(row) for row in rows] == [Sample] * 7
    assert all(row.images for row in rows)
    if layout in WITH_VECTORS:
        assert set(make(source.shards()[0], "bunny.data.sources").stored()) == {"image", "text"}


@pytest.mark.parametrize("layout", ["table", "webdataset", "img2dataset", "hf_dataset", "llava_json"])
def test_so_is_one_file_of_it(layout: str, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    WRITERS[layout](made_up(tmp_path / "raw"), tmp_path / "disk")
    files = sorted(path for path in (tmp_path / "disk").iterdir() if path.suffix in (".parquet", ".tar", ".arrow"))
    path = next((one for one in files if one.suffix != ".parquet" or layout == "table"), tmp_path / "disk" / "set.json")
    block = guess_source(path)
    assert block["use"] == layout
    assert all(isinstance(row, Sample) for row in make(block, "bunny.data.sources").read())


def test_unusual_columns_are_found_by_what_they_hold(tmp_path: Path) -> None:
    row = {"photo": {"bytes": b"x", "path": None}, "TEXT": "a cat", "uid": "7", "md5": b"y"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    block = guess_source(tmp_path)
    assert {key: block[key] for key in ("image", "caption", "id")} == {"image": "photo", "caption": "TEXT", "id": "uid"}
    (got,) = make(block, "bunny.data.sources").read()
    assert (got.id, got.text, got.images[0].column) == ("7", "a cat", "photo")


def test_a_table_of_links_is_read_without_pictures(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"url": "http://x/a.jpg", "text": "a cat"}]), tmp_path / "a.parquet")
    block = guess_source(tmp_path)
    assert block["image"] is None
    (got,) = make(block, "bunny.data.sources").read()
    assert (got.images, got.text, got.meta["url"]) == ((), "a cat", "http://x/a.jpg")


def test_a_set_in_the_cache_of_the_hub_is_read_at_the_revision_in_use(tmp_path: Path) -> None:
    root = tmp_path / "datasets--some--cats"
    for revision in ("aaa", "bbb"):
        data = root / "snapshots" / revision / "data"
        data.mkdir(parents=True)
        rows = [{"image": {"bytes": b"x", "path": "0.png"}, "text": f"{revision} {number}"} for number in range(2)]
        pq.write_table(pa.Table.from_pylist(rows), data / "train-00000-of-00001.parquet")
    with pytest.raises(UserError, match="which of the snapshots aaa, bbb"):
        guess_source(root)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("bbb")
    block = guess_source(root)
    assert block["use"] == "hf_dataset"
    rows = list(make(block, "bunny.data.sources").read())
    assert [row.text for row in rows] == ["bbb 0", "bbb 1"]
    assert (rows[0].id, rows[0].source) == ("data/train-00000-of-00001:0", "some/cats")


def test_a_set_that_the_library_saved_is_recognised() -> None:
    assert guess_source(GOLDEN) == {"use": "hf_dataset", "path": str(GOLDEN)}


def test_downloads_of_img2dataset_as_files_are_a_folder(tmp_path: Path) -> None:
    (tmp_path / "00000").mkdir()
    for name, text in (("0.jpg", "x"), ("0.txt", "words"), ("0.json", json.dumps({"url": "u", "caption": "c"}))):
        (tmp_path / "00000" / name).write_text(text)
    pq.write_table(
        pa.Table.from_pylist([{"key": "0", "caption": "c", "status": "success"}]), tmp_path / "00000.parquet"
    )
    block = guess_source(tmp_path)
    assert block["use"] == "folder"
    (got,) = make(block, "bunny.data.sources").read()
    assert (got.id, got.text, got.meta) == ("00000/0.jpg", "words", {"url": "u", "caption": "c"})


def test_two_sets_of_conversations_are_not_chosen_from(tmp_path: Path) -> None:
    row = {"id": "a", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps([row]))
    with pytest.raises(UserError, match=r"several LLaVA files: a\.json, b\.json; give the path of the one to read"):
        guess_source(tmp_path)
    assert guess_source(tmp_path / "a.json")["use"] == "llava_json"


def test_what_is_no_data_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "settings.json").write_text("[1, 2")
    with pytest.raises(
        UserError, match=r"no data of a known layout; looked for: Hugging Face .* DataComp .*; see docs"
    ):
        guess_source(tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        guess_source(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no data of a known kind \(\.tar"):
        guess_source(tmp_path / "notes.md")
    with pytest.raises(UserError, match="no `conversations`"):
        guess_source(tmp_path / "settings.json")


def test_a_table_without_a_caption_lists_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"image": b"x", "words": "a"}]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="looks like a caption: image, words; write a source block"):
        guess_source(tmp_path)


def test_a_damaged_first_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"a\.parquet: not a whole Parquet file"):
        guess_source(tmp_path)


def test_embeddings_without_tars_need_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    samples = made_up(tmp_path / "raw")
    WRITERS["laion"](samples, tmp_path / "disk")
    shutil.rmtree(tmp_path / "disk" / "shards")
    block = guess_source(tmp_path / "disk")
    assert block == {"use": "laion", "path": str(tmp_path / "disk")}
    rows = list(make(block, "bunny.data.sources").read())
    assert [row.images for row in rows] == [()] * 7
    assert [row.meta["clip_score"] for row in rows] == [cosine(sample) for sample in samples]
