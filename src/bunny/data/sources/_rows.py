"""What all sources share: where files are, what a usable caption is, and a reason for every row that cannot be used.

In: raw rows of one layout. Out: `Sample` or `Rejected`, in the order of the files, ids unique.
"""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.recipe import Section
from bunny.core.types import ImageRef, Rejected, Sample, Turn
from bunny.data.sources._seen import Seen
from bunny.data.sources._shards import warn_of_gaps

Item = TypeVar("Item")

MAX_CAPTION_CHARS = 20_000
NOT_WORDS = frozenset({"", "nan", "none", "null", "<na>", "n/a"})
"""What an exported empty cell looks like; a caption that is one of these in any case counts as empty."""

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2", ".ico"}
)


class BadRow(Exception):
    """A row that cannot become a sample. `reason` is a short code to count by; `id` is the row's own, if known."""

    def __init__(self, reason: str, detail: str = "", id: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.id = reason, detail, id


class RowSource(Section):
    """A layout that is read row by row. Subclasses say what the rows are and what sample a row makes."""

    path: str  # file, folder or glob pattern; a relative one is seen from `folder`
    folder: Path | None = None  # the recipe's folder, supplied by the program; default: the working folder
    name: str | None = None  # the samples' `source`; default: the file's or folder's name
    max_caption_chars: int = Field(MAX_CAPTION_CHARS, gt=0, description="characters; longer texts are rejected")

    @abstractmethod
    def rows(self) -> Iterator[tuple[str, Any]]:
        """(place, raw row) in fixed order; a `BadRow` as raw row stands for one that cannot even be read."""

    @abstractmethod
    def sample(self, where: str, raw: Any) -> Sample:
        """The sample a raw row makes. Raises BadRow."""

    def read(self) -> Iterator[Sample | Rejected]:
        """A sample, or the reason why there is none, for every row. Raises UserError if nothing lies at `path`."""
        places = Seen()
        for where, raw in self.rows():
            try:
                if isinstance(raw, BadRow):
                    raise raw
                sample = self.sample(where, raw)
                if sample.id in places:
                    sample = self.repeated(sample, places)
            except BadRow as bad:
                yield Rejected(bad.id or where, where, bad.reason, bad.detail)
            else:
                places[sample.id] = where
                yield sample

    def repeated(self, sample: Sample, places: Seen) -> Sample:
        """What becomes of a sample whose id was seen before. Raises BadRow."""
        raise BadRow("duplicate_id", f"first seen at {places[sample.id]}", sample.id)

    def located(self, path: str) -> Path:
        """A path written in the recipe, seen from the recipe's folder."""
        return (self.folder or Path()) / path

    def files(self, suffixes: Iterable[str]) -> list[Path]:
        """The files `path` stands for, sorted; warns of gaps in their numbers. Raises UserError if there are none."""
        found = find_files(self.located(self.path), tuple(suffixes))
        warn_of_gaps(found)
        return found

    def one_piece(self, pieces: Sequence[Item]) -> Item:
        """The only piece of the source. Raises UserError if there are several."""
        if len(pieces) != 1:
            raise UserError(f"{self.path}: {len(pieces)} pieces, each with vectors of its own", fix="ask its shards")
        return pieces[0]

    def block(self, path: Path, **changes: Any) -> dict[str, Any]:
        """The `{use: …}` block, for any process and working folder, of this source with another path."""
        kind = type(self)
        module = kind.__module__
        own = module.startswith(__package__ + ".") and getattr(sys.modules[module], "USE", None) is kind
        use = module.rpartition(".")[2] if own else f"{module}:{kind.__qualname__}"
        settings = self.model_dump(mode="json", exclude_unset=True)
        folder = str((self.folder or Path()).absolute())
        return {"use": use, **settings, "folder": folder, "path": str(path.absolute()), **changes}


def find_files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The file at `path`, or all files with one of the suffixes below that folder or matching that pattern, sorted."""
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.suffix.lower() in suffixes and _is_visible(file, path)]
    else:
        start = Path(path.anchor)
        found = [file for file in start.glob(str(path.relative_to(path.anchor))) if file.is_file()]
    if not found:
        kinds = ", ".join(sorted(suffixes))
        raise UserError(f"{path}: no such file, and no {kinds} files there", fix="check the source's `path`")
    return sorted(found)


def _is_visible(file: Path, root: Path) -> bool:
    """Whether it is a file and neither it nor a folder on the way from `root` is hidden (macOS leaves `._0.tar`)."""
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)


def is_file(path: Path) -> bool:
    """Whether a file is there; False too for what no file system takes as a name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def pair(id: str, images: tuple[ImageRef, ...], words: str, source: str, meta: Mapping[str, Any]) -> Sample:
    """An image-text pair whose meta may have any keys; without its picture where only vectors of it are there."""
    return Sample(id, images, (Turn("assistant", words),), source, dict(meta))


def caption(value: object, limit: int) -> str:
    """A caption as clean text: edges stripped. Raises BadRow: empty_caption, caption_too_long, not_text.

    Empty are: nothing, blanks, NaN, and the words that exports write for them (`NOT_WORDS`).
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise BadRow("empty_caption")
    if not isinstance(value, str | int | float):
        raise BadRow("not_text", f"the caption is a {type(value).__name__}")
    text = str(value).strip()
    if text.lower() in NOT_WORDS:
        raise BadRow("empty_caption", repr(text) if text else "")
    return checked(text, limit)


def first_caption(values: Iterable[object], limit: int) -> str:
    """The first of several captions that is not empty. Raises BadRow."""
    for value in values:
        try:
            return caption(value, limit)
        except BadRow as bad:
            if bad.reason != "empty_caption":
                raise
    raise BadRow("empty_caption")


def checked(text: str, limit: int) -> str:
    """The text as it is, if it is storable and not too long. Raises BadRow: caption_too_long, not_text."""
    if len(text) > limit:
        raise BadRow("caption_too_long", f"{len(text)} characters, the limit is {limit}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow("not_text", f"no valid Unicode at character {error.start}") from None
    return text


def plain(value: Any) -> Any:
    """A value as JSON knows it: dates, decimals and the like become text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)
