"""Rows that users really have: each becomes a sample or a reason with its place; none disappears."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Rejected, Sample, Turn
from bunny.data.sources._rows import BadRow, caption, first_caption
from bunny.data.sources.folder import Folder
from bunny.data.sources.llava_json import LlavaJson, image_first
from bunny.data.sources.table import Table
from bunny.data.sources.webdataset import WebDataset


def reasons(rows: list[Sample | Rejected]) -> list[str]:
    return [row.reason if isinstance(row, Rejected) else "ok" for row in rows]


def table(path: Path, rows: list[dict[str, Any]], **settings: Any) -> list[Sample | Rejected]:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return list(Table(path=str(path), **settings).read())


# captions


@pytest.mark.parametrize("value", [None, math.nan, "", "  ", "nan", "NaN", "None", "null", "<NA>", " n/a "])
def test_what_exports_write_for_an_empty_cell_is_empty(value: object) -> None:
    with pytest.raises(BadRow, match="empty_caption"):
        caption(value, 100)


@pytest.mark.parametrize(("value", "text"), [(" a cat ", "a cat"), (7, "7"), ("Nana", "Nana"), ("猫", "猫")])
def test_words_stay(value: object, text: str) -> None:
    assert caption(value, 100) == text


@pytest.mark.parametrize(
    ("value", "reason"), [("x" * 101, "caption_too_long"), (["a"], "not_text"), ("a\ud800b", "not_text")]
)
def test_captions_that_cannot_be_stored_have_reasons(value: object, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        caption(value, 100)
    assert caught.value.reason == reason


def test_the_first_caption_with_words_counts() -> None:
    assert first_caption([None, "nan", "a hat", "a cat"], 100) == "a hat"


# tables


def test_caption_columns_are_tried_in_order_and_the_rest_is_kept(tmp_path: Path) -> None:
    rows = [
        {"image": b"x", "title": "Cat", "description": "A cat sits.", "keywords": ["cat", "pet"], "n": 1},
        {"image": b"y", "title": None, "description": "A dog.", "keywords": [], "n": None},
    ]
    got = table(tmp_path / "a.parquet", rows, caption=("title", "description"))
    assert [row.text for row in got if isinstance(row, Sample)] == ["Cat", "A dog."]
    assert [row.id for row in got] == ["a:0", "a:1"]
    assert isinstance(got[0], Sample)
    assert isinstance(got[1], Sample)
    assert got[0].meta == {"title": "Cat", "description": "A cat sits.", "keywords": ["cat", "pet"], "n": 1}
    assert got[1].meta == {"description": "A dog.", "keywords": []}
    assert got[0].images == (ImageRef(str(tmp_path / "a.parquet"), "0", "image"),)
    assert got[0].source == "a"


def test_samples_are_named_after_their_file_or_the_folder_of_several(tmp_path: Path) -> None:
    row = {"image": b"x", "caption": "c", "source": "somewhere"}
    (alone,) = table(tmp_path / "a.parquet", [row])
    (of_several,) = Table(path=str(tmp_path)).read()
    (named,) = Table(path=str(tmp_path / "*.parquet"), name="laion").read()
    assert [got.source for got in (alone, of_several, named) if isinstance(got, Sample)] == [
        "a",
        tmp_path.name,
        "laion",
    ]
    assert isinstance(alone, Sample)
    assert alone.meta["source"] == "somewhere"


def test_empty_picture_cells_are_rejected_row_by_row(tmp_path: Path) -> None:
    rows = [{"id": str(n), "image": None if n % 3 == 1 else b"x", "caption": "c"} for n in range(7)]
    assert reasons(table(tmp_path / "a.parquet", rows)) == ["ok", "no_picture", "ok", "ok", "no_picture", "ok", "ok"]


def test_paths_are_seen_from_the_table_or_the_named_folder_and_missing_files_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_bytes(b"x")
    rows = [{"image": "p/a.jpg", "caption": "c"}, {"image": "p/b.jpg", "caption": "c"}]
    got = table(tmp_path / "a.parquet", rows)
    assert reasons(got) == ["ok", "missing_file"]
    assert isinstance(got[0], Sample)
    assert got[0].images == (ImageRef(str(tmp_path / "p" / "a.jpg")),)
    rows = [{"image": "a.jpg", "caption": "c"}]
    assert reasons(table(tmp_path / "b.parquet", rows, images=str(tmp_path / "p"))) == ["ok"]


def test_a_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    rows = [{"images": b"x", "captoin": "c"}]
    with pytest.raises(UserError, match="did you mean `images`"):
        table(tmp_path / "a.parquet", rows)
    with pytest.raises(UserError, match=r"no column `caption` or `text`; known: images, captoin"):
        table(tmp_path / "a.parquet", rows, image="images")


def test_a_damaged_shard_is_listed_and_the_others_are_read(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", [{"id": "a", "image": b"x", "caption": "c"}] * 1)
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:90])
    (tmp_path / "c.parquet").write_bytes(b"")
    got = list(Table(path=str(tmp_path)).read())
    assert reasons(got) == ["ok", "damaged_file", "damaged_file"]
    assert got[1].id == str(tmp_path / "b.parquet")


def test_dates_and_pictures_in_other_columns_do_not_spoil_the_meta(tmp_path: Path) -> None:
    import datetime

    row = {"image": b"x", "caption": "c", "day": datetime.date(2024, 2, 1), "thumbnail": b"y"}
    (got,) = table(tmp_path / "a.parquet", [row])
    assert isinstance(got, Sample)
    assert got.meta == {"caption": "c", "day": "2024-02-01"}


# folders


def test_pictures_and_texts_without_each_other_are_rejected(tmp_path: Path) -> None:
    for name in ("a.jpg", "B.JPG", "lonely.png", "sub/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in ("a.txt", "B.txt", "orphan.txt", "sub/c.txt", "notes.md"):
        (tmp_path / name).write_text("words")
    got = list(Folder(path=str(tmp_path)).read())
    assert [(row.id, reason) for row, reason in zip(got, reasons(got), strict=True)] == [
        ("B.JPG", "ok"),
        ("a.jpg", "ok"),
        ("lonely.png", "no_caption"),
        ("orphan.txt", "no_picture"),
        ("sub/c.webp", "ok"),
    ]


def test_a_text_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (got,) = Folder(path=str(tmp_path)).read()
    assert isinstance(got, Rejected)
    assert (got.reason, got.detail) == ("not_text", "a.txt is not UTF-8 at byte 3")


# webdataset


def shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_img2dataset_rows_are_read_with_their_facts(tmp_path: Path) -> None:
    facts = {"caption": "from json", "url": "http://x/y.jpg", "status": "success", "width": 640, "error_message": None}
    members = [("0.jpg", b"x"), ("0.json", json.dumps(facts).encode()), ("1.jpg", b"x"), ("1.txt", b"from txt")]
    first, second = WebDataset(path=str(shard(tmp_path / "00000.tar", members))).read()
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert (first.text, first.meta["url"], first.meta["width"], second.text) == (
        "from json",
        "http://x/y.jpg",
        640,
        "from txt",
    )
    assert first.images == (ImageRef(str(tmp_path / "00000.tar"), "0.jpg"),)


def test_rows_of_a_shard_that_do_not_fit_are_rejected(tmp_path: Path) -> None:
    failed = json.dumps({"caption": "c", "error_message": "HTTP Error 404"}).encode()
    members = [
        ("0.json", failed),
        ("1.jpg", b"x"),
        ("1.json", b"{broken"),
        ("2.jpg", b"x"),
        ("2.png", b"x"),
        ("2.txt", b"c"),
        ("3.jpg", b"x"),
        ("3.txt", b"\xff"),
        ("4.jpg", b"x"),
    ]
    got = list(WebDataset(path=str(shard(tmp_path / "0.tar", members))).read())
    assert reasons(got) == ["no_picture", "malformed_json", "several_pictures", "not_text", "empty_caption"]
    assert isinstance(got[0], Rejected)
    assert got[0].detail == "HTTP Error 404"


def test_a_cut_shard_gives_its_whole_rows_and_says_where_it_breaks(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", [("0.jpg", b"x"), ("0.txt", b"c"), ("1.jpg", b"x" * 9000), ("1.txt", b"c")])
    path.write_bytes(path.read_bytes()[:5000])
    got = list(WebDataset(path=str(path)).read())
    assert reasons(got) == ["ok", "damaged_file"]
    assert isinstance(got[1], Rejected)
    assert got[1].detail == "breaks off inside `1.jpg`"


def test_shards_that_count_from_zero_again_can_be_told_apart(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        shard(tmp_path / name, [("0.jpg", b"x"), ("0.txt", b"c")])
    assert reasons(list(WebDataset(path=str(tmp_path)).read())) == ["ok", "duplicate_id"]
    assert [row.id for row in WebDataset(path=str(tmp_path), ids="shard_key").read()] == ["a/0", "b/0"]


# LLaVA JSON

TALK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]


def llava(folder: Path, text: str, **settings: Any) -> list[Sample | Rejected]:
    (folder / "a.jpg").write_bytes(b"x")
    (folder / "set.json").write_text(text, encoding="utf-8")
    return list(LlavaJson(path=str(folder / "set.json"), **settings).read())


def one(folder: Path, **row: Any) -> Sample | Rejected:
    (got,) = llava(folder, json.dumps([{"id": "r", **row}]))
    return got


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": who, "value": text} for who, text in pairs]


def test_a_row_becomes_a_conversation_with_its_other_keys_kept(tmp_path: Path) -> None:
    got = one(tmp_path, image="a.jpg", conversations=TALK, model="gpt-4")
    picture = ImageRef(str(tmp_path / "a.jpg"))
    talk = (Turn("user", "<image>\nWhat?"), Turn("assistant", "A cat."))
    assert got == Sample("r", (picture,), talk, "set", {"model": "gpt-4"})


def test_text_only_several_pictures_and_system_turns_are_read(tmp_path: Path) -> None:
    text = one(tmp_path, conversations=turns(("human", "Hi"), ("gpt", "Hello")))
    assert isinstance(text, Sample)
    assert text.images == ()
    two = one(tmp_path, image=["a.jpg", "a.jpg"], conversations=turns(("human", "<image><image>"), ("gpt", "Same.")))
    assert isinstance(two, Sample)
    assert len(two.images) == 2
    system = one(tmp_path, conversations=turns(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello")))
    assert isinstance(system, Sample)
    assert [turn.role for turn in system.turns] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<image>\nWhat?", "<image>\nWhat?"),
        ("What?\n<image>", "<image>\nWhat?"),
        ("<image> What? ", "<image>\nWhat?"),
        ("Is <image> a cat?", "<image>\nIs  a cat?"),
        ("<image>\nOnce <image> more <image>", "<image>\nOnce  more"),
        (" <image>\n", "<image>"),
    ],
)
def test_the_mark_of_a_lone_picture_stands_before_its_turn_as_in_the_original(
    tmp_path: Path, written: str, read: str
) -> None:
    got = one(tmp_path, image="a.jpg", conversations=turns(("human", written), ("gpt", "x")))
    assert isinstance(got, Sample)
    assert got.turns[0] == Turn("user", read)
    assert image_first(got.turns) == got.turns


def test_turns_without_a_mark_are_not_touched(tmp_path: Path) -> None:
    talk = turns(("human", " Hi "), ("gpt", " Hello "), ("human", "what is <image>"), ("gpt", "a cat\n"))
    got = one(tmp_path, image="a.jpg", conversations=talk)
    assert isinstance(got, Sample)
    assert [turn.text for turn in got.turns] == [" Hi ", " Hello ", "<image>\nwhat is", "a cat\n"]


def test_the_marks_of_several_pictures_stay_where_they_are_written(tmp_path: Path) -> None:
    words = " Is <image> like <image>? "
    got = one(tmp_path, image=["a.jpg", "a.jpg"], conversations=turns(("human", words), ("gpt", "Yes.")))
    assert isinstance(got, Sample)
    assert got.turns[0].text == words


def test_an_answer_before_the_first_question_is_left_out_as_in_the_original(tmp_path: Path) -> None:
    got = one(tmp_path, conversations=turns(("gpt", "Hello!"), ("human", "Hi"), ("gpt", "Hello")))
    assert isinstance(got, Sample)
    assert got.turns == (Turn("user", "Hi"), Turn("assistant", "Hello"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": TALK}, "image_marks"),
        ({"image": "a.jpg", "conversations": turns(("human", "What?"), ("gpt", "A cat."))}, "image_marks"),
        (
            {
                "image": "a.jpg",
                "conversations": turns(("human", "<image>"), ("gpt", "x"), ("human", "<image>"), ("gpt", "y")),
            },
            "image_marks",
        ),
        ({"image": ["a.jpg"] * 2, "conversations": turns(("human", "<image>"), ("gpt", "x"))}, "image_marks"),
        ({"conversations": turns(("human", "Hi"), ("gpt", "see <image>"))}, "image_marks"),
        ({"image": "b.jpg", "conversations": TALK}, "missing_file"),
        ({"image": 7, "conversations": TALK}, "malformed_row"),
        ({"image": [""], "conversations": TALK}, "malformed_row"),
        ({"conversations": "Hi"}, "malformed_row"),
        ({"conversations": []}, "malformed_row"),
        ({}, "malformed_row"),
        ({"conversations": [{"from": "human"}]}, "malformed_row"),
        ({"conversations": turns(("robot", "Hi"), ("gpt", "x"))}, "wrong_roles"),
        ({"conversations": turns(("human", "Hi"))}, "wrong_roles"),
        ({"conversations": turns(("gpt", "Hi"))}, "wrong_roles"),
        ({"conversations": turns(("human", "a"), ("human", "b"), ("gpt", "c"))}, "wrong_roles"),
        ({"conversations": turns(("human", "a"), ("gpt", "b"), ("human", "c"))}, "wrong_roles"),
        ({"conversations": turns(("human", "a"), ("system", "b"), ("gpt", "c"))}, "wrong_roles"),
        ({"conversations": turns(("human", "Hi"), ("gpt", " "))}, "empty_answer"),
        ({"conversations": turns(("human", "x" * 20_001), ("gpt", "y"))}, "caption_too_long"),
        ({"conversations": turns(("human", "a\ud800"), ("gpt", "y"))}, "not_text"),
    ],
)
def test_conversations_that_do_not_fit_have_reasons(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    got = one(tmp_path, **row)
    assert isinstance(got, Rejected)
    assert (got.id, got.reason, got.where) == ("r", reason, f"{tmp_path / 'set.json'}:1")


def test_bad_json_lines_are_rejected_with_their_number(tmp_path: Path) -> None:
    good = json.dumps({"id": "g", "image": "a.jpg", "conversations": TALK})
    got = llava(tmp_path, "\n".join([good, "", "{broken", "[1, 2", '"text"', good.replace('"g"', '"h"')]))
    assert reasons(got) == ["ok", "malformed_json", "malformed_json", "malformed_row", "ok"]
    assert [row.where.rpartition(":")[2] for row in got if isinstance(row, Rejected)] == ["3", "4", "5"]


def test_items_of_a_list_have_the_line_they_start_on(tmp_path: Path) -> None:
    rows = [{"id": str(n), "conversations": TALK} for n in range(3)]
    got = llava(tmp_path, json.dumps(rows, indent=1))
    lines = json.dumps(rows, indent=1).split("\n")
    starts = [number for number, line in enumerate(lines, start=1) if line == " {"]
    assert [row.where for row in got if isinstance(row, Rejected)] == [f"{tmp_path / 'set.json'}:{n}" for n in starts]


def test_a_list_that_was_cut_off_stops_with_its_line(tmp_path: Path) -> None:
    text = json.dumps([{"id": "a", "conversations": turns(("human", "a"), ("gpt", "b"))}] * 3, indent=1)
    with pytest.raises(UserError, match=r"set\.json:\d+: not valid JSON"):
        llava(tmp_path, text[:-40])


def test_repeated_ids_are_numbered_or_rejected(tmp_path: Path) -> None:
    row = {"id": "a", "conversations": turns(("human", "a"), ("gpt", "b"))}
    text = json.dumps([row, {**row, "id": "a~2"}, row, row])
    assert [got.id for got in llava(tmp_path, text)] == ["a", "a~2", "a~3", "a~4"]
    got = llava(tmp_path, text, repeated_ids="reject")
    assert reasons(got) == ["ok", "ok", "duplicate_id", "duplicate_id"]
    assert isinstance(got[2], Rejected)
    assert got[2].detail == f"first seen at {tmp_path / 'set.json'}:1"


def test_an_empty_list_and_a_byte_order_mark_are_no_errors(tmp_path: Path) -> None:
    assert llava(tmp_path, "[]") == []
    row = json.dumps([{"id": "a", "conversations": turns(("human", "a"), ("gpt", "b"))}])
    assert reasons(llava(tmp_path, "\ufeff" + row)) == ["ok"]
