"""Texts that no file can hold are rejected with a reason, whatever they come from; the rows beside them stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import bunny
from bunny.core.types import ImageRef, Rejected, Sample
from bunny.curate import Selection
from bunny.curate.storable import tellable, unstorable

HALF = "\ud83d"  # of a pair: JSON can name it, UTF-8 cannot hold it
COLOURS = {"use": "tests.curate.recipe_classes:Colours"}
BAD = {
    "half": {"caption": f"a red {HALF} thing"},
    f"id{HALF}": {},
    "i\0d": {},
    "nul": {"caption": "red\0green"},
    "url": {"url": f"x:{HALF}"},
    "key": {f"k{HALF}": 1},
    "huge": {"caption": "red " * 2_500_000},
    "blank": {"caption": " \t\n"},
    "i" * 5000: {},
    "page": {"url": "u" * 10_000_000},
}


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with a picture and a JSON file of the bad rows and two good ones."""
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "in/p.png")
    rows = [{"id": id, "caption": "red", "image": "p.png", **more} for id, more in {**BAD, "a": {}, "z": {}}.items()]
    (tmp_path / "in/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "in"


def curated(source: dict[str, Any], output: Path) -> tuple[Selection, dict[str, str]]:
    found = bunny.curate(source, steps=[{"use": "sample", "count": 99}], embedder=COLOURS, output=output)
    listed = (output / "curated/rejected.jsonl").read_text(encoding="utf-8").splitlines()
    told = {item["id"]: item["reason"] for item in map(json.loads, listed)}
    assert {row["id"] for row in pq.read_table(output / "curated/decisions.parquet").to_pylist()} == {
        *told,
        *found.ids(),
    }
    return found, told


def test_json_rows_that_cannot_be_stored_are_rejected_and_the_others_stay(shelf: Path, tmp_path: Path) -> None:
    found, told = curated({"use": "tests.curate.recipe_classes:Shelf", "path": str(shelf)}, tmp_path / "run")
    assert found.ids() == ["a", "blank", "z"]  # a caption of blanks is no text: what to do with it is the steps' affair
    assert told == {
        "half": "not_unicode",
        "id\\ud83d": "not_unicode",
        "i\\x00d": "not_unicode",
        "nul": "not_unicode",
        "url": "not_unicode",
        "key": "not_unicode",
        "huge": "caption_too_long",
        f"{'i' * 100}…": "text_too_long",
        "page": "text_too_long",
    }


def test_parquet_rows_that_cannot_be_stored_are_rejected_and_the_others_stay(shelf: Path, tmp_path: Path) -> None:
    half = b"\xed\xa0\xbd"  # what some programs write for it
    rows = {
        "a": b"red",
        "blank": b" \t",
        "half": b"red " + half,
        "huge": b"red " * 2_500_000,
        "nul": b"red\0",
        "z": b"red",
    }
    ids, captions = (pa.array(list(column), pa.binary()) for column in ([id.encode() for id in rows], rows.values()))
    text = [pa.Array.from_buffers(pa.string(), len(rows), column.buffers()) for column in (ids, captions)]
    pq.write_table(pa.table([*text, pa.array(["p.png"] * len(rows))], ["id", "caption", "image"]), shelf / "t.parquet")
    found, told = curated({"use": "table", "path": str(shelf / "t.parquet")}, tmp_path / "run")
    assert found.ids() == ["a", "z"]
    assert told == {
        "blank": "empty_caption",
        "half": "not_text",
        "huge": "caption_too_long",
        "nul": "not_unicode",
    }


def test_a_file_name_that_is_no_unicode_is_rejected() -> None:
    told = unstorable(Sample.pair("a", ImageRef("/p/caf\udce9.jpg"), "a café"))
    assert told == Rejected("a", "/p/caf\\udce9.jpg", "not_unicode", "picture: half of a surrogate pair at character 6")


@pytest.mark.parametrize("text", ["", " ", "猫", "\U0001f600", "a\nb", "\u2028"])
def test_other_texts_can_be_stored(text: str) -> None:
    assert unstorable(Sample.pair(text, ImageRef(text), text, text, url=text, n=1, words=[text])) is None


def test_what_is_told_of_a_row_can_be_written() -> None:
    told = tellable(Rejected(HALF, "b\0", "c", "d" * 10_000_000))
    assert (told.id, told.where, len(told.detail)) == ("\\ud83d", "b\\x00", 101)
