"""Rows of JSON files of any size come one at a time, with their line, whatever piece of the file they lie in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bunny.core.errors import UserError
from bunny.data import json_rows as module
from bunny.data.json_rows import json_rows
from bunny.data.sources._rows import BadRow

ROWS: list[Any] = [{"id": "Ünï€😀", "n": [1, {"a": '] [ , \\" '}]}, 12345, "text, with ]", None, [], {}, -1.5e-3]


@pytest.fixture(params=[1, 2, 3, 7, 1 << 22], ids=lambda size: f"pieces of {size}")
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", request.param)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_items_of_a_list_come_in_order_with_their_line(tmp_path: Path, indent: int | None, mark: str) -> None:
    text = json.dumps(ROWS, indent=indent, ensure_ascii=False)
    got = list(json_rows(write(tmp_path / "a.json", f"{mark}\n {text}\n")))
    assert [row for _, row in got] == ROWS
    if indent:
        starts = [n for n, line in enumerate(text.split("\n"), start=2) if line[:1] == " " and line[1:2] not in " ]}"]
        assert [line for line, _ in got] == starts
    else:
        assert {line for line, _ in got} == {2}


@pytest.mark.usefixtures("pieces")
def test_lines_come_in_order_and_bad_ones_in_their_place(tmp_path: Path) -> None:
    text = "\n".join([json.dumps(ROWS[0], ensure_ascii=False), "", "{torn", "[1,", '"last"'])
    got = list(json_rows(write(tmp_path / "a.jsonl", text)))
    assert [(line, row) for line, row in got if not isinstance(row, BadRow)] == [(1, ROWS[0]), (5, "last")]
    assert [(line, row.reason) for line, row in got if isinstance(row, BadRow)] == [
        (3, "malformed_json"),
        (4, "malformed_json"),
    ]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("text", ["", " \n\n", "[]", " [ ] "])
def test_nothing_gives_no_rows(tmp_path: Path, text: str) -> None:
    assert list(json_rows(write(tmp_path / "a.json", text))) == []


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    ("text", "line"), [('[{"a": 1},\n{"b"', 2), ("[1,\n2\n", 3), ("[", 1), ('[\n{"a": 1},\n{b: 2},\n{"c": 3}]', 3)]
)
def test_a_list_that_breaks_off_stops_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(UserError, match=rf"a\.json:{line}: not valid JSON \(.+\); write the file again"):
        list(json_rows(write(tmp_path / "a.json", text)))


@pytest.mark.usefixtures("pieces")
def test_bytes_that_are_no_text_are_named_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('["ü", "'.encode() + b'\xe9"]')
    with pytest.raises(UserError, match=r"a\.json: not UTF-8 at byte 8"):
        list(json_rows(tmp_path / "a.json"))


def test_a_file_that_is_not_there_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        list(json_rows(tmp_path / "a.json"))


def test_what_is_read_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    path = write(tmp_path / "a.json", json.dumps(ROWS))
    assert list(json_rows(path, told.append))
    assert sum(told) == path.stat().st_size
