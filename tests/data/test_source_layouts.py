"""Downloads and embeddings as they are found on disks: rows that failed, files that are missing, orders that differ."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import ImageRef, Rejected, Sample
from bunny.data.containers import ImageError, image_bytes
from bunny.data.sources import _pictures, folder
from bunny.data.sources._rows import BadRow
from bunny.data.sources._seen import Seen
from bunny.data.sources._shards import labels, missing_numbers
from bunny.data.sources._vectors import npy, npz_member
from bunny.data.sources.clip_retrieval import ClipRetrieval
from bunny.data.sources.datacomp import DataComp
from bunny.data.sources.folder import Folder
from bunny.data.sources.hf_dataset import HfDataset
from bunny.data.sources.img2dataset import Img2dataset
from bunny.data.sources.laion import Laion
from bunny.data.sources.table import Table
from bunny.data.sources.webdataset import WebDataset
from tests.contracts.test_sources import WRITERS, made_up
from tests.data.test_source_rows import reasons, shard

GOLDEN = Path(__file__).parents[1] / "golden" / "hf_dataset"


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def samples(source: Any) -> list[Sample]:
    found = list(source.read())
    assert all(isinstance(row, Sample) for row in found), found
    return found


def details(source: Any) -> list[str]:
    return [row.detail for row in source.read() if isinstance(row, Rejected)]


# numbers and ids


def test_a_number_missing_in_a_sequence_is_told_and_names_that_only_hold_numbers_are_not() -> None:
    assert missing_numbers([Path(f"x/{n:05}.tar") for n in (0, 1, 4)]) == ["x/00002.tar", "x/00003.tar"]
    names = ["train-00000-of-00003.parquet", "train-00001-of-00003.parquet"]
    assert missing_numbers([Path(name) for name in names]) == ["train-00002-of-00003.parquet"]
    assert missing_numbers([Path("2019.parquet"), Path("2024.parquet"), Path("a.tar"), Path("9f.npz")]) == []
    assert missing_numbers([Path(f"a_{n}.npy") for n in (9, 10, 11)]) == []


def test_a_gap_in_the_shards_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (0, 1, 3):
        shard(tmp_path / f"{number:05}.tar", [(f"{number}.jpg", b"x"), (f"{number}.txt", b"c")])
    assert reasons(list(WebDataset(path=str(tmp_path)).read())) == ["ok"] * 3
    assert f"is something missing? {tmp_path / '00002.tar'}" in caplog.text


def test_files_of_one_name_in_two_folders_give_different_ids(tmp_path: Path) -> None:
    for split in ("test", "train"):
        parquet(tmp_path / split / "0.parquet", [{"image": b"x", "caption": "c"}])
        shard(tmp_path / split / "0.tar", [("0.jpg", b"x"), ("0.txt", b"c")])
    assert [row.id for row in Table(path=str(tmp_path)).read()] == ["test/0:0", "train/0:0"]
    tars = WebDataset(path=str(tmp_path), ids="shard_key")
    assert [row.id for row in tars.read()] == ["test/0/0", "train/0/0"]
    assert [row.id for block in tars.shards() for row in make(dict(block), "bunny.data.sources").read()] == [
        "test/0/0",
        "train/0/0",
    ]


@given(st.lists(st.text(max_size=4), max_size=300))
def test_ids_are_known_again_exactly_if_they_were_met(ids: list[str]) -> None:
    seen, truth = Seen(), dict[str, str]()
    for number, id in enumerate(ids):
        assert (id in seen) == (id in truth)
        if id in truth:
            assert seen[id] == truth[id]
        else:
            seen[id] = truth[id] = f"some/file.parquet:{number}"
    assert len(seen) == len(truth)


def test_hidden_leavings_of_other_systems_are_no_shards(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", [("0.jpg", b"x"), ("0.txt", b"c")])
    (tmp_path / "._0.tar").write_bytes(b"junk")
    assert reasons(list(WebDataset(path=str(tmp_path)).read())) == ["ok"]


# tars


@pytest.mark.parametrize("cut", [1536, 1600, 2048, 3072])
def test_a_tar_cut_between_or_inside_headers_is_not_taken_for_whole(tmp_path: Path, cut: int) -> None:
    path = shard(tmp_path / "0.tar", [("0.jpg", b"x"), ("0.txt", b"c"), ("1.jpg", b"x"), ("1.txt", b"c")])
    path.write_bytes(path.read_bytes()[:cut])
    got = list(WebDataset(path=str(path)).read())
    assert reasons(got)[-1] == "damaged_file"


# img2dataset


def download(root: Path, rows: list[dict[str, Any]], keys: list[str], number: int = 0) -> Img2dataset:
    parquet(root / f"{number:05}.parquet", rows)
    members = [(f"{key}.{kind}", data) for key in keys for kind, data in (("jpg", b"x"), ("json", b"{}"))]
    shard(root / f"{number:05}.tar", members)
    return Img2dataset(path=str(root), name="n")


def got(key: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "url": "u", "caption": f"c{key}", "status": "success", "error_message": None, **more}


def test_failed_links_are_rejected_with_the_downloader_s_own_words(tmp_path: Path) -> None:
    failed = got("1", status="failed_to_download", error_message="HTTP Error 404: Not Found")
    source = download(tmp_path, [got("0"), failed, got("2", status="failed_to_resize", error_message="bad")], ["0"])
    rows = list(source.read())
    assert reasons(rows) == ["ok", "failed_to_download", "failed_to_resize"]
    assert [row.id for row in rows] == ["0", "1", "2"]
    assert details(source) == ["HTTP Error 404: Not Found", "bad"]


def test_rows_and_pictures_are_paired_by_key_and_those_left_over_are_rejected(tmp_path: Path) -> None:
    source = download(tmp_path, [got("2"), got("0"), got("lost")], ["0", "stray", "2"])
    rows = list(source.read())
    assert [(row.id, reason) for row, reason in zip(rows, reasons(rows), strict=True)] == [
        ("2", "ok"),
        ("0", "ok"),
        ("lost", "no_picture"),
        ("stray", "no_row"),
    ]
    assert [row.images[0].member for row in rows if isinstance(row, Sample)] == ["2.jpg", "0.jpg"]
    assert [row.text for row in rows if isinstance(row, Sample)] == ["c2", "c0"]


def test_a_tar_without_its_table_and_a_table_without_its_tar_are_rejected(tmp_path: Path) -> None:
    source = download(tmp_path, [got("0")], ["0"])
    shard(tmp_path / "00001.tar", [("1.jpg", b"x")])
    parquet(tmp_path / "00002.parquet", [got("2")])
    parquet(tmp_path / "links.parquet", [{"url": "u"}])
    rows = list(source.read())
    assert reasons(rows) == ["ok", "missing_shard", "missing_shard"]
    assert "no 00001.parquet beside 00001.tar" in details(source)[0]
    assert "no 00002.tar beside 00002.parquet" in details(source)[1]
    assert [row for block in source.shards() for row in make(dict(block), "bunny.data.sources").read()] == rows


def test_a_column_can_give_the_ids_and_counts_that_differ_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    download(tmp_path, [got("0", uid="abc")], ["0"])
    (tmp_path / "00000_stats.json").write_text(json.dumps({"successes": 7}))
    assert [row.id for row in Img2dataset(path=str(tmp_path), id="uid").read()] == ["abc"]
    assert "counts 7 pictures, 00000.parquet has 1 rows" in caplog.text
    with pytest.raises(UserError, match="did you mean `uid`"):
        list(Img2dataset(path=str(tmp_path), id="uidd").read())


# clip-retrieval and LAION


def embeddings(
    root: Path, rows: list[dict[str, Any]], image: Any, text: Any = None, number: int = 0, kind: str = "_{}"
) -> ClipRetrieval:
    parquet(root / f"metadata{kind.format(number)}.parquet", rows)
    np.save(root / f"img_emb{kind.format(number)}.npy", image)
    if text is not None:
        np.save(root / f"text_emb{kind.format(number)}.npy", text)
    return ClipRetrieval(path=str(root))


def described(*keys: str, **more: Any) -> list[dict[str, Any]]:
    return [{"image_path": key, "caption": f"c {key}", **more} for key in keys]


def eye(count: int, dims: int = 4) -> Any:
    return np.eye(count, dims, dtype=np.float16)


def test_files_whose_counts_differ_are_not_paired_and_the_others_are_read(tmp_path: Path) -> None:
    embeddings(tmp_path, described("a", "b"), eye(3))
    source = embeddings(tmp_path, described("c", "d"), eye(2), number=1)
    assert reasons(list(source.read())) == ["wrong_count", "ok", "ok"]
    assert details(source) == ["img_emb_0.npy has 3 rows, metadata_0.parquet 2: they do not pair"]
    first, second = (make(dict(block), "bunny.data.sources") for block in source.shards())
    assert first.stored() == {}
    assert second.stored()["image"].path.name == "img_emb_1.npy"


@pytest.mark.parametrize(
    ("vectors", "reason", "words"),
    [
        (np.eye(2), "wrong_dtype", "img_emb_1.npy holds float64; save it with `.astype('float16')`"),
        (np.eye(2, dtype=">f4"), "wrong_dtype", "holds >f4"),
        (np.zeros(2, np.float16), "wrong_dims", "has the shape (2,)"),
        (eye(2, 3), "wrong_dims", "img_emb_1.npy has 3 columns, the first shard 4"),
    ],
)
def test_vectors_of_another_kind_are_rejected_with_the_cure(
    vectors: Any, reason: str, words: str, tmp_path: Path
) -> None:
    embeddings(tmp_path, described("a", "b"), eye(2))
    source = embeddings(tmp_path, described("c", "d"), vectors, number=1)
    assert reasons(list(source.read())) == ["ok", "ok", reason]
    assert words in details(source)[0]


@pytest.mark.parametrize("file", ["metadata_1.parquet", "img_emb_1.npy"])
def test_one_file_of_a_piece_stands_for_the_piece(tmp_path: Path, file: str) -> None:
    embeddings(tmp_path, described("a"), eye(1))
    embeddings(tmp_path, described("b"), eye(1), number=1)
    one = ClipRetrieval(path=str(tmp_path / file))
    assert [row.id for row in one.read()] == ["b"]
    assert one.stored()["image"].path.name == "img_emb_1.npy"


def test_a_shard_names_all_its_files_and_no_folder(tmp_path: Path) -> None:
    for number in (0, 1):
        source = embeddings(tmp_path, described(str(number)), eye(1), eye(1), number=number)
    (_, block) = source.shards()
    named = [Path(block[key]).name for key in ("path", "image_file", "text_file")]
    assert named == ["metadata_1.parquet", "img_emb_1.npy", "text_emb_1.npy"]


def test_a_shard_without_one_of_its_files_is_rejected(tmp_path: Path) -> None:
    embeddings(tmp_path, described("a"), eye(1), eye(1))
    source = embeddings(tmp_path, described("b"), eye(1), number=1)
    np.save(tmp_path / "img_emb_2.npy", eye(1))
    assert reasons(list(source.read())) == ["ok", "missing_shard", "missing_shard"]
    assert [words.split(";")[0] for words in details(source)] == [
        "no text vectors for metadata_1.parquet",
        "no metadata for img_emb_2.npy",
    ]


def test_that_only_counts_were_compared_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    embeddings(tmp_path, described("a"), eye(1))
    source = embeddings(tmp_path, described("b"), eye(1), number=1)
    samples(source)
    samples(source)
    assert caplog.text.count("only the number of rows could be compared") == 1


def test_vectors_with_keys_are_joined_by_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = embeddings(tmp_path, described("a", "b", "c"), eye(3))
    np.save(tmp_path / "keys_0.npy", np.array(["c", "x", "a"]))
    assert reasons(list(source.read())) == ["ok", "no_vector", "ok"]
    rows = source.stored()["image"].rows
    assert rows is not None
    assert rows.tolist() == [2, -1, 0]
    assert "could be compared" not in caplog.text


def test_a_likeness_that_agrees_is_a_check_of_the_order_and_one_that_does_not_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 50, 8)).astype(np.float16)
    one, other = (part.astype(float) / np.linalg.norm(part.astype(float), axis=1)[:, None] for part in (image, text))
    cosines = (one * other).sum(axis=1).tolist()
    rows = [{"key": str(n), "caption": "c", "similarity": cosine} for n, cosine in enumerate(cosines)]
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    embeddings(tmp_path / "good", rows, image, text)
    assert [row.meta["clip_score"] for row in samples(Laion(path=str(tmp_path / "good")))] == cosines
    assert caplog.text == ""
    embeddings(tmp_path / "bad", rows, image[::-1], text[::-1])
    samples(Laion(path=str(tmp_path / "bad")))
    assert "`similarity` is not the cosine of these vectors" in caplog.text


def test_pictures_are_joined_by_key_whatever_their_order(tmp_path: Path) -> None:
    source = embeddings(tmp_path, described("000010001", "000000000", "nowhere", "000009999"), eye(4))
    (tmp_path / "tars").mkdir()
    for stem, keys in (("00001", ["000010000", "000010001"]), ("00000", ["000000000"])):
        shard(tmp_path / "tars" / f"{stem}.tar", [(f"{key}.jpg", key.encode()) for key in keys])
    joined = source.model_copy(update={"images": str(tmp_path / "tars")})
    rows = list(joined.read())
    assert reasons(rows) == ["ok", "ok", "missing_file", "missing_file"]
    assert [image_bytes(row.images[0]) for row in rows if isinstance(row, Sample)] == [b"000010001", b"000000000"]
    assert "no key `000009999` in" in details(joined)[1]


def test_keys_are_only_looked_up_in_the_tar_that_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stem in ("00000", "00001"):
        shard(tmp_path / f"{stem}.tar", [(f"{stem}0007.jpg", b"x")])
    opened: list[str] = []
    index = _pictures.tar_index
    monkeypatch.setattr(_pictures, "tar_index", lambda path: opened.append(path.name) or index(path))
    assert _pictures.Pictures(tmp_path).find("000010007").member == "000010007.jpg"
    assert opened == ["00001.tar"]


def test_picture_files_are_found_by_their_path_or_its_end(tmp_path: Path) -> None:
    (tmp_path / "p" / "cats").mkdir(parents=True)
    (tmp_path / "p" / "cats" / "a.jpg").write_bytes(b"x")
    here = str(tmp_path / "p" / "cats" / "a.jpg")
    source = embeddings(tmp_path, described("/elsewhere/data/cats/a.jpg", here, "cats/a", "cats/b"), eye(4))
    found = list(source.model_copy(update={"images": str(tmp_path / "p")}).read())
    assert reasons(found) == ["ok", "ok", "ok", "missing_file"]
    assert {row.images for row in found if isinstance(row, Sample)} == {(ImageRef(here),)}
    assert [row.images for row in samples(source)] == [(), (ImageRef(here),), (), ()]


def test_the_first_releases_of_laion_in_capitals_have_the_names_that_steps_know(tmp_path: Path) -> None:
    row = {
        "SAMPLE_ID": 12,
        "URL": "u",
        "TEXT": "a cat",
        "LICENSE": "?",
        "NSFW": "UNLIKELY",
        "WIDTH": 3,
        "similarity": 0.3,
    }
    embeddings(tmp_path, [row], eye(1))
    (read,) = samples(Laion(path=str(tmp_path)))
    assert (read.id, read.text) == ("12", "a cat")
    facts = {"url": "u", "licence": "?", "nsfw": "UNLIKELY", "width": 3, "clip_score": 0.3, "caption": "a cat"}
    assert read.meta == {"SAMPLE_ID": 12, **facts}


def test_two_files_of_one_number_are_a_user_error(tmp_path: Path) -> None:
    source = embeddings(tmp_path, described("a"), eye(1))
    np.save(tmp_path / "img_emb_0000.npy", eye(1))
    with pytest.raises(UserError, match="have the same number; keep one"):
        list(source.read())


# DataComp


def datacomp(root: Path, rows: list[dict[str, Any]], save: Any = np.savez, **arrays: Any) -> DataComp:
    parquet(root / "0.parquet", rows)
    save(root / "0.npz", **arrays)
    return DataComp(path=str(root))


UIDS = [f"{n:032x}" for n in (5, 2**64 + 7, 2**127)]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_vectors_are_unpacked_once_and_again_if_the_archive_changes(tmp_path: Path, save: Any) -> None:
    rows = [{"uid": uid, "text": "c"} for uid in UIDS]
    source = datacomp(tmp_path, rows, save, l14_img=eye(3), l14_txt=eye(3), b32_img=eye(3, 2), b32_txt=eye(3, 2))
    path = source.stored()["image"].path
    made = path.stat().st_mtime_ns
    assert np.load(path).tolist() == eye(3).tolist()
    assert source.stored()["image"].path.stat().st_mtime_ns == made
    assert np.load(source.model_copy(update={"model": "b32"}).stored()["text"].path).shape == (3, 2)
    save(tmp_path / "0.npz", l14_img=eye(3)[::-1], l14_txt=eye(3))
    assert np.load(source.stored()["image"].path).tolist() == eye(3)[::-1].tolist()
    far = source.model_copy(update={"unpack_to": str(tmp_path / "far")})
    assert far.stored()["image"].path.parent == tmp_path / "far"


def test_an_archive_that_is_damaged_inside_is_rejected(tmp_path: Path) -> None:
    rows = [{"uid": uid, "text": "c"} for uid in UIDS]
    source = datacomp(tmp_path, rows, l14_img=np.ones((3, 700), np.float16), l14_txt=np.ones((3, 700), np.float16))
    data = bytearray((tmp_path / "0.npz").read_bytes())
    data[2000] ^= 255
    (tmp_path / "0.npz").write_bytes(data)
    assert reasons(list(source.read())) == ["damaged_file"]
    assert source.stored() == {}
    assert not list((tmp_path / ".bunny-vectors").glob("*l14_img*"))


def test_archives_with_other_models_say_what_they_hold(tmp_path: Path) -> None:
    source = datacomp(tmp_path, [{"uid": UIDS[0], "text": "c"}], b32_img=eye(1), b32_txt=eye(1))
    assert reasons(list(source.read())) == ["missing_vectors"]
    assert "it holds b32_img, b32_txt" in details(source)[0]


def test_a_score_that_is_not_the_vectors_cosine_shows_that_rows_were_moved(tmp_path: Path) -> None:
    image, text = np.random.default_rng(1).normal(size=(2, 20, 8)).astype(np.float32)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (image, text)]
    scores = (unit[0] * unit[1]).sum(axis=1)
    rows = [{"uid": f"{n:032x}", "text": "c", "clip_l14_similarity_score": float(s)} for n, s in enumerate(scores)]
    assert len(samples(datacomp(tmp_path / "good", rows, l14_img=image, l14_txt=text))) == 20
    moved = datacomp(tmp_path / "bad", rows, l14_img=np.roll(image, 1, 0), l14_txt=np.roll(text, 1, 0))
    assert reasons(list(moved.read())) == ["wrong_order"]
    assert "cosines are not those of `clip_l14_similarity_score`" in details(moved)[0]


@pytest.mark.parametrize("as_numbers", [False, True])
def test_uids_in_the_archive_decide_which_vector_is_whose(tmp_path: Path, as_numbers: bool) -> None:
    carried: Any = np.array(UIDS[::-1])
    if as_numbers:
        carried = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in UIDS[::-1]], "u8,u8")
    rows = [{"uid": uid, "text": "c"} for uid in UIDS]
    source = datacomp(tmp_path, rows, l14_img=eye(3), l14_txt=eye(3), uid=carried)
    found = source.stored()["text"].rows
    assert found is not None
    assert found.tolist() == [2, 1, 0]


@pytest.mark.parametrize("beside", [True, False], ids=["table", "json"])
def test_pictures_are_joined_by_uid(tmp_path: Path, beside: bool) -> None:
    source = datacomp(tmp_path / "m", [{"uid": u, "text": "c"} for u in UIDS], l14_img=eye(3), l14_txt=eye(3))
    uids = {"0": UIDS[2], "1": UIDS[0]}
    members = []
    for key, uid in uids.items():
        members += [
            (f"{key}.jpg", uid.encode()),
            (f"{key}.json", b"{}" if beside else json.dumps({"uid": uid}).encode()),
        ]
    (tmp_path / "t").mkdir()
    shard(tmp_path / "t" / "0.tar", members)
    if beside:
        parquet(tmp_path / "t" / "0.parquet", [{"key": key, "uid": uid} for key, uid in uids.items()])
    rows = list(source.model_copy(update={"images": str(tmp_path / "t")}).read())
    assert reasons(rows) == ["ok", "missing_file", "ok"]
    assert [image_bytes(row.images[0]).decode() for row in rows if isinstance(row, Sample)] == [UIDS[0], UIDS[2]]


def test_metadata_without_archives_is_read_without_vectors(tmp_path: Path) -> None:
    parquet(tmp_path / "0.parquet", [{"uid": UIDS[0], "text": "c", "sha256": "0" * 64, "face_bboxes": [[0.1, 0.2]]}])
    source = DataComp(path=str(tmp_path))
    (row,) = samples(source)
    assert (row.id, row.images, row.meta["face_bboxes"]) == (UIDS[0], (), [[0.1, 0.2]])
    assert source.stored() == {}


# vectors


@given(st.integers(0, 300))
def test_a_cut_vector_file_says_how_many_rows_are_whole(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    np.save(path, eye(20))
    whole = path.read_bytes()
    assert npy(path).rows == 20
    path.write_bytes(whole[:cut])
    if cut < len(whole):
        with pytest.raises(BadRow, match=r"damaged_file: a\.npy"):
            npy(path)


def test_a_folder_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=eye(2))
    (tmp_path / "file").write_text("x")
    with pytest.raises((UserError, OSError)):
        npz_member(tmp_path / "a.npz", "x", tmp_path / "file" / "below")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(BadRow, match="damaged_file"):
        npz_member(tmp_path / "b.npz", "x", tmp_path / "out")


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_list_columns_are_vectors_and_rows_that_do_not_fit_are_rejected(tmp_path: Path, kind: Any) -> None:
    cells = [[1.0, 0.0], None, [1.0], [0.0, 1.0], []]
    lists = pa.array([cell and [np.float16(x) for x in cell] for cell in cells], pa.list_(kind))
    table = pa.table({"image": [b"x"] * 5, "caption": ["c"] * 5, "emb": lists})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    source = Table(path=str(tmp_path / "a.parquet"), vectors={"image": "emb"})
    assert reasons(list(source.read())) == ["ok", "no_vector", "wrong_dims", "ok", "no_vector"]
    stored = source.stored()["image"]
    assert stored.rows is not None
    assert stored.rows.tolist() == [0, -1, -1, 3, -1]
    loaded = np.load(stored.path)
    assert loaded.dtype == (np.float16 if kind == pa.float16() else np.float32)
    assert loaded[[0, 3]].tolist() == [[1, 0], [0, 1]]


def test_lists_of_numbers_are_no_facts_and_other_lists_are_no_vectors(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", [{"image": b"x", "caption": "c", "emb": [0.5, 0.5], "words": ["a"]}])
    (row,) = samples(Table(path=str(tmp_path / "a.parquet")))
    assert row.meta == {"caption": "c", "words": ["a"]}
    with pytest.raises(UserError, match="holds list<element: string>, not lists of floats"):
        Table(path=str(tmp_path / "a.parquet"), vectors={"image": "words"}).stored()
    with pytest.raises(UserError, match="did you mean `emb`"):
        list(Table(path=str(tmp_path / "a.parquet"), vectors={"image": "emb2"}).read())


# tables and Hugging Face


def test_a_struct_without_bytes_is_the_path_it_names(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    cells = [{"bytes": b"y", "path": "b.jpg"}, {"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": None}, None]
    rows = list(Table(path=str(parquet(tmp_path / "a.parquet", [{"image": c, "caption": "c"} for c in cells]))).read())
    assert reasons(rows) == ["ok", "ok", "no_picture", "no_picture"]
    assert [image_bytes(row.images[0]) for row in rows if isinstance(row, Sample)] == [b"y", b"x"]


def test_a_picture_column_of_another_kind_is_a_user_error(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [{"image": 7, "caption": "c"}])
    with pytest.raises(UserError, match="`image` holds int64, no bytes or paths; set `image`"):
        list(Table(path=str(path)).read())


def test_a_name_no_file_can_have_is_a_missing_file(tmp_path: Path) -> None:
    rows = [{"image": "x" * 5000 + ".jpg", "caption": "c"}, {"image": "a\0b", "caption": "c"}]
    assert reasons(list(Table(path=str(parquet(tmp_path / "a.parquet", rows))).read())) == ["missing_file"] * 2


def test_what_the_library_saved_is_read_as_it_was_given() -> None:
    train = samples(HfDataset(path=str(GOLDEN), split="train"))
    assert [row.text for row in train] == [f"caption {n}" for n in range(5)]
    assert [row.meta["score"] for row in train] == [0, 0.25, 0.5, 0.75, 1.0]
    assert train[3].id == "train/data-00001-of-00002:0"
    assert image_bytes(train[3].images[0]).startswith(b"\x89PNG")
    everything = samples(HfDataset(path=str(GOLDEN)))
    assert everything[:5] == train
    assert [row.text for row in everything[5:]] == ["caption 5", "caption 6"]
    with pytest.raises(UserError, match="no split `tset`; known: test, train"):
        list(HfDataset(path=str(GOLDEN), split="tset").read())


def test_rows_chosen_by_an_index_file_and_missing_shards_are_told(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "gone.arrow"}]}))
    assert reasons(list(HfDataset(path=str(tmp_path)).read())) == ["missing_shard"]
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [], "_indices_files": [{"filename": "i"}]}))
    with pytest.raises(UserError, match="save it after `flatten_indices"):
        list(HfDataset(path=str(tmp_path)).read())


def test_a_row_that_an_arrow_file_does_not_have_is_an_image_error() -> None:
    path = GOLDEN / "test" / "data-00000-of-00001.arrow"
    with pytest.raises(ImageError, match="no such row or column `image`"):
        image_bytes(ImageRef(str(path), "7", "image"))
    with pytest.raises(ImageError, match="no such row or column `picture`"):
        image_bytes(ImageRef(str(path), "0", "picture"))


# folders


def test_texts_may_have_other_suffixes_and_json_keeps_the_rest(tmp_path: Path) -> None:
    for name, data in {
        "a.jpg": b"x",
        "a.caption": b"from caption",
        "b.jpg": b"x",
        "b.json": b'{"text": "from json", "score": 0.5}',
        "c.jpg": b"x",
        "c.json": b"{broken",
        "d.jpg": b"x",
        "d.txt": b"",
        "d.json": b'{"caption": "second"}',
        "orphan.caption": b"x",
        "settings.json": b"{}",
    }.items():
        (tmp_path / name).write_bytes(data)
    rows = list(Folder(path=str(tmp_path)).read())
    assert reasons(rows) == ["ok", "ok", "malformed_json", "ok", "no_picture"]
    assert [(row.text, dict(row.meta)) for row in rows if isinstance(row, Sample)] == [
        ("from caption", {}),
        ("from json", {"text": "from json", "score": 0.5}),
        ("second", {"caption": "second"}),
    ]


def test_the_shards_of_a_folder_are_its_folders_and_the_files_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "SHARD_ENTRIES", 4)
    for name in ("a", "b", "c", "d/0", "d/1", "e", "f/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        for suffix in ("jpg", "txt"):
            (tmp_path / f"{name}.{suffix}").write_text(name)
    source = Folder(path=str(tmp_path))
    shards = source.shards()
    assert [block["between"] for block in shards] == [
        ["a.jpg", "b.txt"],
        ["c.jpg", "c.txt"],
        ["d", "d"],
        ["e.jpg", "e.txt"],
        ["f", "f"],
    ]
    assert [row for block in shards for row in make(dict(block), "bunny.data.sources").read()] == samples(source)


def test_labels_are_short_where_they_can_be() -> None:
    assert labels([Path("/x/a.tar"), Path("/x/y/b.tar")]) == ["a", "b"]


def test_warnings_are_no_noise_for_whole_sets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        samples(download(tmp_path, [got("0")], ["0"]))
    assert caplog.text == ""


# bytes that changed


def test_a_text_in_parquet_that_is_no_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    raw = pa.array([b"a cat", b"caf\xe9", None, b"a dog"]).view(pa.string())
    table = pa.table({"image": [b"x"] * 4, "caption": raw, "url": ["u"] * 4})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    rows = list(Table(path=str(tmp_path / "a.parquet")).read())
    assert reasons(rows) == ["ok", "not_text", "empty_caption", "ok"]
    assert [row.meta["url"] for row in rows if isinstance(row, Sample)] == ["u", "u"]


@pytest.mark.parametrize("layout", ["clip_retrieval", "datacomp", "webdataset"])
def test_changed_bytes_never_end_in_a_traceback(layout: str, tmp_path: Path) -> None:
    whole = made_up(tmp_path / "raw", 4)
    (tmp_path / "disk").mkdir()
    source = make(WRITERS[layout](whole, tmp_path / "disk"), "bunny.data.sources", folder=tmp_path / "disk")
    kinds = {"clip_retrieval": ".npy", "datacomp": ".npz", "webdataset": ".tar"}
    files = sorted(path for path in (tmp_path / "disk").rglob(f"*{kinds[layout]}") if "." not in path.parts[-2])
    rng = np.random.default_rng(0)
    for turn in range(60):
        path = files[turn % len(files)]
        kept = path.read_bytes()
        changed = bytearray(kept)
        for _ in range(1 + turn % 3):
            changed[int(rng.integers(min(len(kept), 2000)))] = int(rng.integers(256))
        path.write_bytes(changed)
        for block in source.shards():
            one = make(dict(block), "bunny.data.sources")
            rows = list(one.read())
            assert rows, "a shard without a word"
            if layout != "webdataset":
                one.stored()
        path.write_bytes(kept)


def test_an_arrow_file_whose_offsets_changed_is_damaged_and_no_crash(tmp_path: Path) -> None:
    kept = (GOLDEN / "test" / "data-00000-of-00001.arrow").read_bytes()
    path = tmp_path / "a.arrow"
    captions = kept.index(b"caption 5")
    offsets = kept.rindex((0).to_bytes(4, "little") + (9).to_bytes(4, "little"), 0, captions)
    path.write_bytes(kept[: offsets + 4] + b"\xff\xff\xff\x7f" + kept[offsets + 8 :])
    assert reasons(list(HfDataset(path=str(path)).read())) == ["damaged_file"]


@pytest.mark.parametrize("text", ["[]", '{"_data_files": [{}]}', '{"_data_files": 7}', "{broken"])
def test_a_list_of_files_that_is_damaged_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(UserError, match=r"state\.json: damaged"):
        list(HfDataset(path=str(tmp_path)).read())
