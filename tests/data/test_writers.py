"""Writers one by one: what they wrote is read back by the matching source, and looks as other programs expect."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Rejected, Sample, Turn
from bunny.data.containers import image_bytes
from bunny.data.row_facts import RowFacts
from bunny.data.sources.img2dataset import Img2dataset
from bunny.data.sources.llava_json import LlavaJson as LlavaSource
from bunny.data.sources.table import Table
from bunny.data.sources.webdataset import WebDataset as WebSource
from bunny.data.writers.datacomp_uids import DataCompUids
from bunny.data.writers.ids import Ids
from bunny.data.writers.llava_json import LlavaJson
from bunny.data.writers.parquet import ParquetShards
from bunny.data.writers.webdataset import WebDataset

TALK = (Turn("user", "<image>\nWhat?"), Turn("assistant", "It."))


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    made = []
    for number, kind in enumerate(["png", "jpg", "webp", "png"]):
        path = tmp_path / f"{number}.dat"
        Image.new("RGB", (6, 4), (number * 20, 0, 90)).save(path, {"jpg": "JPEG"}.get(kind, kind.upper()))
        made.append(Sample.pair(f"set/{number}", ImageRef(str(path)), f"caption {number}", "made_up", n=[number]))
    return made


@pytest.fixture
def facts(tmp_path: Path) -> RowFacts:
    """A decision table without `set/3`, which it dropped."""
    ids = [f"set/{number}" for number in range(4)]
    columns = {
        "id": ids,
        "kept": [True, True, True, False],
        "reason": ["", "", "", "bad"],
        "pair_cosine": pa.array([0.5, None, 0.25, 0.1], pa.float32()),
        "cluster": pa.array([3, 1, 2, 0], pa.int32()),
    }
    pq.write_table(pa.table(columns), tmp_path / "decisions.parquet")
    return RowFacts(tmp_path / "decisions.parquet")


def comparable(rows: Sequence[Sample | Rejected]) -> list[Any]:
    assert all(isinstance(row, Sample) for row in rows)
    return [
        (row.id, row.text, row.meta["n"], [image_bytes(ref) for ref in row.images])
        for row in rows
        if isinstance(row, Sample)
    ]


def test_webdataset_is_read_back_with_ids_words_and_the_very_bytes(samples: list[Sample], tmp_path: Path) -> None:
    WebDataset(samples_per_shard=3).write(iter(samples), tmp_path / "out")
    assert comparable(list(WebSource(path=str(tmp_path / "out")).read())) == comparable(samples)


@pytest.mark.parametrize("source", [WebSource, Img2dataset])
def test_ids_that_are_no_keys_come_back_from_webdataset(source: Any, samples: list[Sample], tmp_path: Path) -> None:
    ids = ["photos/cat.v2.jpg", "50%", "/étoile\n", "long" * 80]
    rows = [replace(sample, id=id) for sample, id in zip(samples, ids, strict=True)]
    WebDataset().write(iter(rows), tmp_path / "out")
    assert [row.id for row in source(path=str(tmp_path / "out")).read()] == ids


def test_an_id_of_others_json_is_not_taken_for_the_key(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("a%2Eb.png", b"x"), ("a%2Eb.txt", b"words"), ("a%2Eb.json", b'{"id": "7"}')):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    assert [row.id for row in WebSource(path=str(tmp_path / "a.tar")).read()] == ["a%2Eb"]


def test_webdataset_has_the_layout_of_img2dataset(samples: list[Sample], facts: RowFacts, tmp_path: Path) -> None:
    broken = Sample.pair("set/x", ImageRef(str(tmp_path / "gone.png")), "lost")
    WebDataset(samples_per_shard=3, keys="number").write(iter([*samples[:2], broken, *samples[2:]]), tmp_path, facts)
    with tarfile.open(tmp_path / "00000.tar") as tar:
        assert tar.getnames()[:4] == ["000000.png", "000000.txt", "000000.json", "000001.jpg"]
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}
        words = json.load(tar.extractfile("000000.json"))  # type: ignore[arg-type]  # it is there
    assert words["n"] == [0]
    assert (words["id"], words["caption"], words["cluster"], words["pair_cosine"]) == ("set/0", "caption 0", 3, 0.5)
    rows = pq.read_table(tmp_path / "00000.parquet").to_pylist()
    assert [(row["key"], row["status"]) for row in rows] == [
        ("000000", "success"),
        ("000001", "success"),
        ("000002", "failed_to_read"),
    ]
    assert "missing_file" in rows[2]["error_message"]
    assert (rows[0]["width"], rows[0]["height"], rows[0]["cluster"]) == (6, 4, 3)
    assert json.loads((tmp_path / "00000_stats.json").read_text()) == {
        "count": 3,
        "successes": 2,
        "failed_to_read": 1,
    }


def test_webdataset_numbers_ten_thousand_a_shard_as_img2dataset_does() -> None:
    assert WebDataset(keys="number")._key("any", "00012", 34) == "000120034"


@given(some.lists(some.text(some.characters(exclude_categories=["Cs"]), min_size=1, max_size=200), unique=True))
def test_no_two_ids_share_a_key_and_no_key_breaks_out_of_its_member(ids: list[str]) -> None:
    keys = [WebDataset()._key(id, "00000", 0) for id in ids]
    assert len(set(keys)) == len(ids)
    for key in keys:
        assert not key.startswith("/") and not {".", "\x00", "\n", "\\"} & set(key)
        assert "//" not in key and len(key.encode()) <= 180


def test_webdataset_refuses_what_it_cannot_hold_and_keeps_conversations(samples: list[Sample], tmp_path: Path) -> None:
    picture = samples[0].images[0]
    rows = [
        Sample("talk", (picture,), TALK),
        Sample("two", (picture, picture), (Turn("user", "<image><image>"), TALK[1])),
        Sample("none", (), (Turn("user", "Hi"), TALK[1])),
    ]
    rejected = WebDataset().write(iter(rows), tmp_path / "out")
    assert [(row.id, row.reason) for row in rejected] == [("two", "several_pictures"), ("none", "no_picture")]
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        words = json.load(tar.extractfile("talk.json"))  # type: ignore[arg-type]  # it is there
    assert words["conversations"][0] == {"role": "user", "text": "<image>\nWhat?"}


def test_parquet_is_read_back_with_scores_and_the_very_bytes(
    samples: list[Sample], facts: RowFacts, tmp_path: Path
) -> None:
    ParquetShards(samples_per_shard=3).write(iter(samples), tmp_path / "out", facts)
    back = list(Table(path=str(tmp_path / "out")).read())
    assert [
        (row.id, row.text, json.loads(row.meta["meta"])["n"], [image_bytes(ref) for ref in row.images])
        for row in back
        if isinstance(row, Sample)
    ] == comparable(samples)
    assert [row.meta.get("cluster") for row in back if isinstance(row, Sample)] == [3, 1, 2, None]


def test_parquet_shows_pictures_to_hugging_face(samples: list[Sample], facts: RowFacts, tmp_path: Path) -> None:
    ParquetShards(samples_per_shard=3).write(iter(samples), tmp_path, facts)
    first, second = (pq.read_schema(tmp_path / f"0000{number}.parquet") for number in (0, 1))
    assert first.equals(second, check_metadata=True)
    features = json.loads(first.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["pair_cosine"] == {"dtype": "float32", "_type": "Value"}
    assert set(features) == set(first.names)
    assert str(first.field("image").type) == "struct<bytes: binary, path: string>"


def test_parquet_keeps_texts_without_a_picture_and_conversations(samples: list[Sample], tmp_path: Path) -> None:
    rows = [Sample("none", (), (Turn("user", "Hi"), TALK[1])), Sample("talk", samples[0].images, TALK)]
    assert ParquetShards().write(iter(rows), tmp_path / "out") == []
    none, talk = pq.read_table(tmp_path / "out" / "00000.parquet").to_pylist()
    assert none["image"] is None
    assert [turn["text"] for turn in json.loads(talk["conversations"])] == ["<image>\nWhat?", "It."]


def test_llava_copies_each_picture_once_and_lists_what_it_cannot(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "same.dat").write_bytes(image_bytes(samples[0].images[0]))
    (tmp_path / "broken.jpg").write_bytes(b"none")
    first, second = samples[0].images[0], samples[2].images[0]
    rows = [
        Sample("a", (first,), TALK, "made_up", {"n": [1]}),
        Sample("same", (ImageRef(str(tmp_path / "same.dat")),), TALK, "made_up"),
        Sample("broken", (ImageRef(str(tmp_path / "broken.jpg")),), TALK, "made_up"),
        Sample("both", (first, second), (Turn("user", "<image><image>"), TALK[1]), "made_up"),
        Sample("text", (), (Turn("user", "Hi"), TALK[1]), "made_up"),
    ]
    rejected = LlavaJson(file="set.json", images="pictures").write(iter(rows), tmp_path / "out")
    assert [(row.id, row.reason) for row in rejected] == [("broken", "not_a_picture")]
    assert sorted(path.suffix for path in (tmp_path / "out" / "pictures").iterdir()) == [".png", ".webp"]
    back = list(LlavaSource(path=str(tmp_path / "out" / "set.json"), images=str(tmp_path / "out" / "pictures")).read())
    assert [(row.id, row.turns, row.source, row.meta) for row in back if isinstance(row, Sample)] == [
        (row.id, row.turns, row.source, row.meta) for row in rows if row.id != "broken"
    ]


def test_llava_rows_carry_the_scores(samples: list[Sample], facts: RowFacts, tmp_path: Path) -> None:
    LlavaJson().write(iter(samples), tmp_path / "out", facts)
    rows = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert rows[0]["scores"] == {"pair_cosine": 0.5, "cluster": 3}
    assert rows[0]["conversations"][0] == {"from": "human", "value": "<image>"}
    assert (
        len(list(LlavaSource(path=str(tmp_path / "out/samples.json"), images=str(tmp_path / "out/images")).read())) == 4
    )


def test_datacomp_uids_are_sorted_pairs_of_64_bit_halves(tmp_path: Path) -> None:
    uids = ["f" * 32, "0" * 31 + "1", "00000000000000010000000000000000"]
    DataCompUids().write((Sample(uid, (), ()) for uid in uids), tmp_path)
    got = np.load(tmp_path / "uids.npy")
    assert got.dtype == np.dtype("u8,u8")
    assert got.tolist() == [(0, 1), (1, 0), (2**64 - 1, 2**64 - 1)]


def test_datacomp_uids_come_from_the_meta_where_told(tmp_path: Path) -> None:
    DataCompUids(uid="uid").write(iter([Sample("a", (), (), meta={"uid": "ab" * 16})]), tmp_path)
    assert np.load(tmp_path / "uids.npy").tolist() == [(0xABABABABABABABAB, 0xABABABABABABABAB)]


@pytest.mark.parametrize("id", ["animals/cat", "f" * 31, "g" * 32, ""])
def test_an_id_that_is_no_uid_is_named_and_nothing_is_written(id: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no DataComp uid"):
        DataCompUids().write(iter([Sample("a" * 32, (), ()), Sample(id, (), ())]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_ids_stand_one_a_line(tmp_path: Path) -> None:
    rejected = Ids().write((Sample(id, (), ()) for id in ["b", "ä a", "two\nlines"]), tmp_path)
    assert (tmp_path / "ids.txt").read_text(encoding="utf-8") == "b\nä a\n"
    assert [(row.id, row.reason) for row in rejected] == [("two\nlines", "line_break")]


def test_facts_of_a_table_that_is_none_are_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"x\.parquet: cannot be read"):
        RowFacts(tmp_path / "x.parquet")
