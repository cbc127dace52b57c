"""Rows of a JSON list, or of JSON lines, one at a time and with their line: a file of gigabytes never lies in memory.

In: a file. Out: (line number, row). A line that is not JSON is a `BadRow` in its row's place; a list that breaks off
cannot be gone on with, so it is a `UserError` that names the line.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import meter
from bunny.data.sources._rows import BadRow

PIECE_BYTES = 1 << 22
_GAP = re.compile(r"[\s,]*")
_AFTER_ITEM = frozenset(" \t\r\n,]")


def json_rows(path: Path, read: Callable[[int], None] | None = None) -> Iterator[tuple[int, Any]]:
    """(line number, row) of every item of a JSON list, or of every line that is not blank.

    read: is told how many bytes were taken from the file, piece by piece (for progress). Raises UserError.
    """
    pieces = _pieces(path, read)
    head = ""
    for piece in pieces:
        head += piece
        if head.strip():
            break
    is_list = head.lstrip()[:1] == "["
    return _list_items(path, head, pieces) if is_list else _line_items(head, pieces)


def tracked_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """`json_rows` with a progress bar in megabytes."""
    with meter(f"reading {path.name} (MB)", max(1, path.stat().st_size // 10**6)) as bar:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.advance(min(bar.total, done // 10**6) - bar.done)

        yield from json_rows(path, advance)


def _pieces(path: Path, read: Callable[[int], None] | None) -> Iterator[str]:
    """The file's text in pieces; a byte order mark is left out."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    done = 0
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", fix="check the path") from None
    with file:
        while True:
            data = file.read(PIECE_BYTES)
            waiting = len(decoder.getstate()[0])  # bytes of a character that the last piece cut in two
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                at = done - waiting + error.start
                raise UserError(f"{path}: not UTF-8 at byte {at}", fix="convert the file") from None
            done += len(data)
            if read and data:
                read(len(data))
            yield text
            if not data:
                return


def _line_items(text: str, pieces: Iterator[str]) -> Iterator[tuple[int, Any]]:
    """(line number, row) of JSON lines; blank lines are no rows."""
    number = 1
    for piece in _and_the_end(pieces):
        lines = (text + piece).split("\n") if piece is not None else [text, ""]
        for line in lines[:-1]:
            if line.strip():
                yield number, _parsed(line)
            number += 1
        text = lines[-1]


def _and_the_end(pieces: Iterator[str]) -> Iterator[str | None]:
    yield from pieces
    yield None


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        return BadRow("malformed_json", str(error))


def _list_items(path: Path, text: str, pieces: Iterator[str]) -> Iterator[tuple[int, Any]]:
    """(line number, item) of a JSON list. Raises UserError with the line where it breaks.

    An item that does not parse may only be cut by the end of the piece: as much text as there is already is added and
    it is tried again, so that a long item costs no more than twice its length.
    """
    decoder = json.JSONDecoder()
    at = text.index("[") + 1
    line, counted, ended = 1 + text.count("\n", 0, at), at, False
    while True:
        at = _GAP.match(text, at).end()  # type: ignore[union-attr]  # the pattern matches anything
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            return
        try:
            item, end = decoder.raw_decode(text, at)
            whole = ended or text[end : end + 1] in _AFTER_ITEM  # a number may go on in the next piece
            problem = ""
        except ValueError as error:
            whole, problem = False, str(error).partition(": line")[0]
        if whole:
            yield line, item
            at = end
        elif ended:
            fix = "write the file again; it may have been cut off"
            raise UserError(f"{path}:{line}: not valid JSON ({problem})", fix=fix)
        else:
            more, ended = _more(pieces, len(text) - at)
            text, at, counted = text[at:] + more, 0, 0


def _more(pieces: Iterator[str], characters: int) -> tuple[str, bool]:
    """At least so many characters more, and whether the text ends with them."""
    taken: list[str] = []
    while sum(map(len, taken)) <= characters:
        piece = next(pieces, None)
        if piece is None:
            return "".join(taken), True
        taken.append(piece)
    return "".join(taken), False
