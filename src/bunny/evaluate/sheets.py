"""Pictures made of named pictures: pasted on a white sheet, with a word drawn over them, kept in a cache file.

In: rows of a Parquet file and where they go. Out: one Parquet file of PNGs, named after all that it depends on, written
once and whole. The same plan gives the same pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from bunny.core.errors import UserError
from bunny.core.publishing import publish
from bunny.core.store import fingerprint_files
from bunny.core.types import ImageRef, Question
from bunny.evaluate.named import NamedPictures

VERSION = 1  # of what is drawn; a new number draws all sheets again
SIDE = 128  # pixels of a cell
MARGIN = 8


@dataclass(frozen=True)
class Sheet:
    """A white sheet. cells: (source row, column, line) of each picture on a grid of columns × lines. text: drawn over
    the sheet in a white band, `height` from 0 (top) to 1 (bottom). side: pixels of a cell."""

    columns: int
    lines: int
    cells: tuple[tuple[int, int, int], ...]
    text: str = ""
    height: float = 1.0
    side: int = SIDE


class Composed(NamedPictures):
    """A benchmark whose pictures are drawn when they are first needed."""

    cache: Path | None = None  # folder of drawn pictures; default: $XDG_CACHE_HOME/bunny/sheets
    font: Path | None = None  # TrueType or OpenType font; default: the one that comes with Pillow

    def plan(self) -> list[tuple[Sheet, Question]]:
        """Each question with its sheet; its `images` are still empty."""
        raise UserError(f"{type(self).__name__}: has no `plan`", fix="see evaluate/benchmarks/counting.py")

    def questions(self) -> Sequence[Question]:
        """The questions; the pictures they name are there after `prepare`."""
        plan = self.plan()
        path = self.drawn([sheet for sheet, _ in plan])
        return [replace(one, images=(ImageRef(str(path), str(row)),)) for row, (_, one) in enumerate(plan)]

    def prepare(self) -> None:
        """Draw the pictures, if they are not there yet."""
        sheets = [sheet for sheet, _ in self.plan()]
        path = self.drawn(sheets)
        if not path.is_file():
            draw(self.source, sheets, path, self.font)

    def drawn(self, sheets: Sequence[Sheet]) -> Path:
        """Where the drawn pictures lie."""
        made_of = [self.source] if self.font is None else [self.source, self.font]
        content = [VERSION, fingerprint_files(made_of), [asdict(sheet) for sheet in sheets]]
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
        return (self.cache or _cache()) / f"{name}.parquet"


def draw(source: Path, sheets: Sequence[Sheet], path: Path, font: Path | None = None) -> None:
    """Write one PNG a sheet into the Parquet file `path`, column `image`. Raises UserError for unreadable pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded = pq.read_table(source, columns=["image"]).column("image")
    rows = []
    for sheet in sheets:
        picture = Image.new("RGB", (sheet.columns * sheet.side, sheet.lines * sheet.side), "white")
        for row, column, line in sheet.cells:
            pasted = small(encoded[row].as_py(), f"{source}#{row}", sheet.side)
            left, top = ((sheet.side - size) // 2 for size in pasted.size)
            picture.paste(pasted, (column * sheet.side + left, line * sheet.side + top))
        if sheet.text:
            _write(picture, sheet, font)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        rows.append(buffer.getvalue())
    with publish(path) as temporary:
        pq.write_table(pa.table({"image": rows}), temporary)


def small(content: Any, where: str, side: int = SIDE) -> Image.Image:
    """The picture on white, as large as fits into a cell of `side` pixels. Raises UserError if it cannot be read."""
    try:
        picture = Image.open(io.BytesIO(content)).convert("RGBA")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{where}: cannot be read: {error}", fix="leave this picture out of the file") from None
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    room = side - 2 * MARGIN
    scale = room / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return white.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def has_glyphs(text: str, font: Path | None) -> bool:
    """Whether the font can draw the text: every letter differs from what a missing one looks like."""
    used = _font(font, 24)
    missing = used.getmask("\U0010ffff")
    return all(bytes(used.getmask(letter)) != bytes(missing) for letter in text if not letter.isspace())


def _write(picture: Image.Image, sheet: Sheet, font: Path | None) -> None:
    """The text in a white band with a thin frame, as large as fits."""
    size = 40
    while size > 8 and _font(font, size).getlength(sheet.text) > picture.width - 4 * MARGIN:
        size -= 2
    used = _font(font, size)
    left, top, right, bottom = used.getbbox(sheet.text)
    width, height = right - left + 2 * MARGIN, bottom - top + 2 * MARGIN
    x, y = (picture.width - width) // 2, round((picture.height - height - 2) * sheet.height)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((x, y, x + width, y + height), fill="white", outline="black")
    pen.text((x + MARGIN - left, y + MARGIN - top), sheet.text, fill="black", font=used)


def _font(path: Path | None, size: int) -> Any:
    try:
        return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    except OSError as error:
        raise UserError(f"{path}: no font: {error}", fix="give a .ttf or .otf file as `font`") from None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bunny" / "sheets"
