"""Bunny-695K from its two sources: text-only rows out, WizardLM in, order and counts kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bunny.core.errors import UserError
from bunny.core.types import Sample
from bunny.data.make_695k import Made, make_695k
from bunny.data.sources.llava_json import LlavaJson
from tests.data.published import picture, row, write

SVIT = [row("s1", "coco/1.jpg"), row("sharegpt"), row("s2", "vg/2.jpg", "<image>\nÜ?"), {**row("empty"), "image": ""}]
WIZARD = [
    {"instruction": "Say hi.", "output": "Hi."},
    {"idx": "x7", "conversations": [{"from": "human", "value": "And?"}, {"from": "gpt", "value": "So."}]},
]


def made(folder: Path, svit: Any = SVIT, wizard: Any = WIZARD) -> Made:
    return make_695k(write(folder, "svit.json", svit), write(folder, "wizard.json", wizard), folder / "out" / "b.json")


def test_rows_without_a_picture_go_and_wizards_come_after_in_order(tmp_path: Path) -> None:
    result = made(tmp_path)
    rows = json.loads(result.path.read_text())
    assert [one["id"] for one in rows] == ["s1", "s2", "wizardlm_0", "wizardlm_1"]
    assert rows[:2] == [SVIT[0], SVIT[2]]
    assert rows[2]["conversations"] == [{"from": "human", "value": "Say hi."}, {"from": "gpt", "value": "Hi."}]
    assert (result.kept, result.dropped, result.added, result.rows, result.rejected) == (2, 2, 2, 4, [])
    assert not result.rejected_path.exists()


def test_the_same_sources_make_the_same_bytes_and_the_source_reads_them(tmp_path: Path) -> None:
    first = made(tmp_path).path
    again = make_695k(tmp_path / "svit.json", tmp_path / "wizard.json", tmp_path / "again.json").path
    assert first.read_bytes() == again.read_bytes()
    for name in ("coco/1.jpg", "vg/2.jpg"):
        picture(tmp_path, name)
    read = list(LlavaJson(path=str(first), images=str(tmp_path / "finetune/images")).read())
    assert [type(one) for one in read] == [Sample] * 4


def test_sources_may_be_json_lines(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(one) for one in WIZARD)
    assert made(tmp_path, wizard=lines).added == 2


def test_rows_that_cannot_be_used_are_counted_and_listed(tmp_path: Path) -> None:
    bad = [
        {"instruction": "", "output": "x"},
        {"instruction": "x", "output": " "},
        {"instruction": "x"},
        "text",
        {"instruction": "what is in <image>?", "output": "x"},
        {"conversations": [{"from": "gpt", "value": "alone"}]},
        {"instruction": "good", "output": "good"},
    ]
    result = made(tmp_path, svit=[*SVIT, {"id": "s3", "image": "a.jpg"}], wizard=bad)
    assert [one.reason for one in result.rejected] == [
        "malformed_row",
        "empty_question",
        "empty_answer",
        "malformed_row",
        "malformed_row",
        "image_marks",
        "wrong_roles",
    ]
    listed = [json.loads(line) for line in result.rejected_path.read_text().splitlines()]
    line = (tmp_path / "svit.json").read_text().splitlines().index('  "id": "s3",')  # its brace is one line above
    assert listed[0]["id"] == "s3"
    assert listed[0]["where"] == f"{tmp_path / 'svit.json'}:{line}"
    assert [one["id"] for one in json.loads(result.path.read_text())][-1] == "wizardlm_6"


def test_counts_far_from_the_published_ones_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path)
    assert "2 rows without a picture left out of SVIT, expected about 40688" in caplog.text
    assert "2 rows of WizardLM added, expected about 70000" in caplog.text


@pytest.mark.parametrize(
    ("svit", "wizard", "said"),
    [
        ([row("text")], WIZARD, r"svit\.json: no row with a picture"),
        (SVIT, [{"prompt": "x"}], r"wizard\.json: no usable row"),
        ('[{"id": "s1",', WIZARD, r"svit\.json:1: not valid JSON"),
        (SVIT, '[{"instruction": "a", "output": "b"},\n{', r"wizard\.json:2: not valid JSON"),
    ],
)
def test_wrong_or_broken_files_leave_nothing_behind(tmp_path: Path, svit: Any, wizard: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        made(tmp_path, svit, wizard)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(UserError, match=r"b\.json: is there already; delete it"):
        made(tmp_path)
    with pytest.raises(UserError, match=r"nowhere\.json: no such file"):
        make_695k(tmp_path / "nowhere.json", tmp_path / "wizard.json", tmp_path / "c.json")
