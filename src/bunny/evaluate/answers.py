"""An answers file of any of the layouts that evaluation scripts write, as one list of `Given`.

In: JSON lines, a JSON list or mapping, an Excel or text table, a folder of MMMU's `SUBJECT/output.json` or of MME's
`CATEGORY.txt`. Out: what each row says to which question, in the file's order, and how many lines could not be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.evaluate.files import Row, json_of, jsonl_of, sheet_of, table_of, text_of

IDS = ("question_id", "questionId", "index", "id", "image")
TEXTS = ("text", "response", "prediction", "answer", "output", "score")
"""Field names of the question and of what was said to it, in the order in which they are looked for."""


@dataclass(frozen=True)
class Given:
    """One row of an answers file. id: as it stands there. text: what was said. row: all its fields."""

    id: str
    text: str
    prompt: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """A whole file. kind: `rows`; `mapping` (id -> text, which benchmarks take as already read) or `table` (MME's
    text files). unread: lines that were torn or had too few or too many cells."""

    path: Path
    given: Sequence[Given]
    kind: str = "rows"
    unread: int = 0


def read_answers(path: Path) -> Answers:
    """The answers in `path`. Raises UserError if it is none of the known layouts, or empty."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder", fix="name the file with the answers")
    kind, unread = "rows", 0
    given: list[Given]
    if path.is_dir():
        kind, unread, given = _folder(path)
    elif path.suffix == ".json":
        kind, given = _json(path)
    elif path.suffix == ".jsonl":
        torn: list[int] = []
        given = [_given(row, f"{path}: row {number}") for number, row in enumerate(jsonl_of(path, torn), 1)]
        unread = len(torn)
    elif path.suffix in (".xlsx", ".tsv", ".csv"):
        rows = sheet_of(path) if path.suffix == ".xlsx" else table_of(path)
        given = [_given(row, f"{path}: row {number}") for number, row in enumerate(rows, 2)]
    else:
        raise UserError(f"{path}: answers come as .jsonl, .json, .xlsx, .tsv, .csv or a folder, not `{path.suffix}`")
    if not given:
        raise UserError(f"{path}: no answers in it", fix="was the run that wrote it stopped early?")
    return Answers(path, given, kind, unread)


def _json(path: Path) -> tuple[str, list[Given]]:
    tree = json_of(path)
    if isinstance(tree, list):
        return "rows", [_given(row, f"{path}: row {number}") for number, row in enumerate(tree, 1)]
    if not isinstance(tree, dict):
        raise UserError(f"{path}: neither a list nor a mapping", fix='write {"question id": "answer", …}')
    if all(isinstance(value, dict) for value in tree.values()):
        return "rows", [Given(str(id), text_from(row), row={"id": id, **row}) for id, row in tree.items()]
    return "mapping", [Given(str(id), _words(value), row={"id": id}) for id, value in tree.items()]


def _folder(path: Path) -> tuple[str, int, list[Given]]:
    subjects = sorted(path.glob("*/output.json"))
    if subjects:
        return "rows", 0, [each for file in subjects for each in _json(file)[1]]
    texts = sorted(path.glob("*.txt"))
    if not texts:
        inside = ", ".join(sorted(each.name for each in path.iterdir())[:8]) or "nothing"
        raise UserError(f"{path}: no SUBJECT/output.json and no CATEGORY.txt in it, but {inside}", fix="name the file")
    lines = [(file.stem, line) for file in texts for line in lines_of(file)]
    whole = [(category, line) for category, line in lines if line.count("\t") == 3]
    return "table", sum(bool(line.strip()) for _, line in lines) - len(whole), list(_table(whole))


def _table(lines: Sequence[tuple[str, str]]) -> Iterator[Given]:
    for category, line in lines:
        picture, question, gold, said = line.split("\t")
        yield Given(f"{category}/{picture}", said, question, {"category": category, "gold": gold})


def lines_of(path: Path) -> list[str]:
    """The lines of a text file as Python's universal line ends give them, without their ends."""
    return text_of(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _given(row: Any, where: str) -> Given:
    if not isinstance(row, dict):
        raise UserError(f"{where}: not an object", fix='write {"question_id": …, "text": …}')
    name = next((name for name in IDS if name in row), None)
    if name is None:
        raise UserError(f"{where}: no question id", fix=f"name it {' or '.join(IDS)}; fields there: {', '.join(row)}")
    if not any(text in row for text in TEXTS):
        raise UserError(f"{where}: no answer", fix=f"name it {' or '.join(TEXTS)}; fields there: {', '.join(row)}")
    return Given(_words(row[name]), text_from(row), _words(row.get("prompt", "")), row)


def text_from(row: Row) -> str:
    """What a row says, under the first of the names in `TEXTS` that it has."""
    return _words(next((row[name] for name in TEXTS if name in row), ""))


def _words(value: Any) -> str:
    """A cell as text; whole numbers that a table stored as 7.0 are 7 again."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)
