"""What is missing of a published set is found before a run: files, rows, pictures by folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from bunny.core.errors import UserError
from bunny.data.published_check import check
from tests.data.published import ONE, make_parts, picture, row, use_tiny_sets, write


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_tiny_sets(tmp_path / "facts", monkeypatch)
    return make_parts(tmp_path / "data")


def test_a_whole_set_is_complete(root: Path) -> None:
    report = check("one", root)
    assert report.complete
    assert (report.rows, report.rows_without_picture, report.repeated_ids, report.bad_rows) == (3, 1, 0, {})
    (file,) = report.files
    assert (file.rows, file.expected, file.fits) == (3, "3", True)
    (folder,) = report.folders
    assert (folder.folder, folder.named, folder.missing, folder.empty) == ("coco/train2017", 2, 0, 0)
    pictures = [root / "finetune/images/coco/train2017" / f"{n}.jpg" for n in (1, 2)]
    assert report.bytes == sum(path.stat().st_size for path in [root / "finetune/one.json", *pictures])
    assert json.loads(json.dumps(asdict(report)))["to_do"] == []


def test_a_composed_set_is_checked_as_its_parts_where_its_file_is_not(root: Path) -> None:
    report = check("both", root)
    assert (report.complete, report.from_parts, report.rows, report.repeated_ids) == (True, True, 5, 1)
    assert [folder.folder for folder in report.folders] == ["coco/train2017", "vg/VG_100K", "vg/VG_100K_2"]


def test_missing_and_empty_pictures_are_counted_by_folder_with_names_and_where_to_download(root: Path) -> None:
    rows = [*ONE[:2], *(row(f"m{n}", f"coco/train2017/m{n}.jpg") for n in range(8)), row("z", "else/x/z.jpg")]
    write(root, "finetune/one.json", rows)
    (root / "finetune/images/coco/train2017/2.jpg").write_bytes(b"")
    report = check("one", root)
    coco, other = report.folders
    assert (coco.named, coco.missing, coco.empty) == (10, 8, 1)
    assert coco.first == ["coco/train2017/2.jpg", *(f"coco/train2017/m{n}.jpg" for n in range(4))]
    assert coco.download == "http://coco/train2017.zip"
    assert (other.folder, other.missing) == ("else", 1)
    assert other.download == "https://huggingface.co/datasets/lab/one (images.tar)"
    assert not report.complete
    assert any("8 of 10 pictures missing, 1 empty files: download from http://coco" in line for line in report.to_do)


def test_a_picture_named_twice_counts_once(root: Path) -> None:
    write(root, "finetune/one.json", [ONE[0], {**ONE[0], "id": "a2"}, row("m", "coco/m.jpg"), row("n", "coco/m.jpg")])
    coco, missing = check("one", root).folders[1], check("one", root).folders[0]
    assert (coco.folder, coco.named) == ("coco/train2017", 1)
    assert (missing.folder, missing.named, missing.missing) == ("coco", 1, 1)


def test_a_link_to_a_picture_counts_and_a_broken_link_or_a_folder_does_not(root: Path) -> None:
    folder = root / "finetune/images/coco/train2017"
    (folder / "good.jpg").symlink_to(folder / "1.jpg")
    (folder / "broken.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "folder.jpg").mkdir()
    names = ("good", "broken", "folder")
    write(root, "finetune/one.json", [row(name, f"coco/train2017/{name}.jpg") for name in names])
    assert check("one", root).folders[0].missing == 2


def test_several_pictures_of_a_row_and_pictures_without_a_folder_are_looked_up(root: Path) -> None:
    picture(root, "top.png")
    several = {**ONE[0], "image": ["top.png", "gone.png"]}
    write(root, "finetune/one.json", [several, ONE[1], ONE[2]])
    top = check("one", root).folders[0]
    assert (top.folder, top.named, top.missing, top.first) == (".", 2, 1, ["gone.png"])


def test_a_missing_json_file_is_told_with_its_place(root: Path) -> None:
    (root / "finetune/one.json").unlink()
    report = check("one", root)
    assert report.files[0].rows is None
    assert report.to_do == [
        f"download one.json (size: 1 kB) from https://huggingface.co/datasets/lab/one to {root / 'finetune/one.json'}"
    ]


@pytest.mark.parametrize(
    ("name", "rows", "fits"), [("one", 2, False), ("one", 4, False), ("two", 3, True), ("two", 4, False)]
)
def test_another_number_of_rows_is_told_within_what_is_known(root: Path, name: str, rows: int, fits: bool) -> None:
    write(root, f"finetune/{name}.json", [row(f"r{n}") for n in range(rows)])
    report = check(name, root)
    assert report.files[0].fits == report.complete == fits
    assert fits or f"{rows} rows, expected" in report.to_do[0]


def test_rows_that_are_no_rows_are_counted_by_reason(root: Path) -> None:
    lines = [json.dumps(ONE[0]), "{torn", "[]", json.dumps({"id": "x"}), json.dumps({**ONE[0], "image": 7})]
    write(root, "finetune/one.json", "\n".join(lines))
    report = check("one", root)
    assert report.bad_rows == {"malformed_row": 3, "malformed_json": 1}
    assert any("4 rows are of no use (malformed_row, malformed_json)" in line for line in report.to_do)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a Git LFS pointer, not the file itself",
        ),
        ("<!DOCTYPE html>", "not JSON: it starts with '<!DOCTYPE html>'"),
        ("", "an empty file"),
        ('[{"id": "a"},\n{"id"', r"one\.json:2: not valid JSON"),
    ],
)
def test_what_is_not_the_file_stops_with_one_line(root: Path, text: str, said: str) -> None:
    write(root, "finetune/one.json", text)
    with pytest.raises(UserError, match=said):
        check("one", root)


def test_a_root_that_is_not_there_is_a_user_error(root: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder; name the folder"):
        check("one", root / "nowhere")
