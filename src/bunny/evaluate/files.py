"""Question and answer files of every kind, read whole, with errors that say what, where and how to mend it.

In: a path. Out: rows as plain dicts. A torn line of a JSONL file (a writer that was killed) is left out and counted;
nothing else is skipped in silence. Tables are read as text: an option that reads "None" or "NA" stays that word.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError

Row = dict[str, Any]


def text_of(path: Path) -> str:
    """The file as UTF-8 text, line ends as they are; a byte-order mark is dropped."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", fix="see what is missing with `bunny eval doctor`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}", fix="save it as UTF-8") from None


def json_of(path: Path) -> Any:
    """The file's one JSON document."""
    try:
        return json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no valid JSON: {error}", fix="get the file again, or mend that place") from None


def jsonl_of(path: Path, torn: list[int] | None = None) -> list[Row]:
    """One object a line. torn: takes the numbers of lines that are no JSON; without it the first is an error."""
    rows = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if torn is None:
                raise UserError(f"{path}:{number}: no valid JSON: {error}", fix="get the file again") from None
            torn.append(number)
            continue
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: not an object", fix='each line is one object: {"question_id": …}')
        rows.append(row)
    return rows


def table_of(path: Path) -> list[Row]:
    """The rows of a TSV (or `.csv`) file with a header line, every cell a string."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # pictures come as base64
    separator = "," if path.suffix.lower() == ".csv" else "\t"
    reader = csv.DictReader(io.StringIO(text_of(path), newline=""), delimiter=separator)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not a table: {error}", fix="get the file again") from None
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise UserError(
                f"{path}: row {number} has {'more' if None in row else 'fewer'} cells than the header",
                fix="get the file again, or quote cells that hold tabs and line breaks",
            )
    return rows


def sheet_of(path: Path) -> list[Row]:
    """The rows of the first sheet of an Excel file, by the names in its first row; empty cells are ''."""
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise UserError(f"{path}: reading Excel needs openpyxl", fix="pip install 'bunny-vlm[eval]'") from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = [list(line) for line in book.worksheets[0].iter_rows(values_only=True)]
        book.close()
    except Exception as error:  # noqa: BLE001  # openpyxl lets zip, XML and key errors through
        raise UserError(f"{path}: cannot be read as Excel: {error}", fix="save it as .xlsx again") from None
    if not lines:
        return []
    names = [str(name) for name in lines[0]]
    return [
        {name: "" if cell is None else cell for name, cell in zip(names, line, strict=False)}
        for line in lines[1:]
        if any(cell is not None for cell in line)
    ]


def parquet_of(path: Path, columns: Sequence[str]) -> list[Row]:
    """The named columns that the Parquet file has, row by row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        known = pq.read_schema(path).names
        rows: list[Row] = pq.read_table(path, columns=[name for name in columns if name in known]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    return rows


def need(row: Mapping[str, Any], names: Sequence[str], where: str) -> list[Any]:
    """The named fields of a row, of the first name that it has each time `a|b` is given; UserError if one is absent."""
    values = []
    for name in names:
        found = next((each for each in name.split("|") if each in row), None)
        if found is None:
            raise UserError(f"{where}: no field `{name}`", fix="fields there: " + ", ".join(map(str, row)))
        values.append(row[found])
    return values


def write_json(path: Path, tree: Any) -> None:
    """One JSON document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree), encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_sheet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """An Excel file of the rows, with a header; characters that Excel cannot hold are left out."""
    try:
        import openpyxl
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    except ModuleNotFoundError:
        raise UserError(f"{path}: writing Excel needs openpyxl", fix="pip install 'bunny-vlm[eval]'") from None
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(list(rows[0]) if rows else [])
    for row in rows:
        sheet.append([_writable(cell, ILLEGAL_CHARACTERS_RE) for cell in row.values()])
    book.save(path)


def _writable(cell: Any, illegal: re.Pattern[str]) -> Any:
    return illegal.sub("", cell).encode("utf-8", "replace").decode() if isinstance(cell, str) else cell
