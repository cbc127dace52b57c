"""A source read to the end: counts, lists and clear ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bunny.core.errors import UserError
from bunny.data.reading import read_source


def test_rejected_rows_are_counted_listed_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "b.txt").write_text("")
    reading = read_source({"use": "folder", "path": "."}, tmp_path, "pool")
    assert [row.id for row in reading.samples] == ["a.jpg"]
    assert reading.reasons == {"empty_caption": 1, "no_caption": 1}
    assert "pool: 2 rows cannot be used" in caplog.text
    reading.write_rejected(tmp_path / "rejected.jsonl")
    listed = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in listed] == [("b.jpg", "empty_caption"), ("c.jpg", "no_caption")]


def test_a_source_without_one_usable_row_is_a_user_error_with_the_first_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"pool: no usable sample, all rejected, first .*a\.jpg: no_caption"):
        read_source({"use": "folder", "path": str(tmp_path)}, tmp_path, "pool")
