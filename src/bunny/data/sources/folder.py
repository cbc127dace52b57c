"""A folder of pictures with side-car texts: `cat.jpg` and `cat.txt`.

In: a folder, searched with its sub-folders. Out: one pair a picture, sorted by path; the id is the path inside the
folder. A picture without a text, or a text without a picture, is rejected; other files are not rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Sample
from bunny.data.sources._rows import PICTURE_SUFFIXES, BadRow, RowSource, caption, pair


class Folder(RowSource):
    """`{use: folder, path: pictures/}`"""

    def rows(self) -> Iterator[tuple[str, Path]]:
        root = self.located(self.path)
        if not root.is_dir():
            raise UserError(f"{root}: no such folder", fix="check the source's `path`")
        for path in sorted(root.rglob("*")):
            kind = path.suffix.lower()
            if path.is_file() and (kind in PICTURE_SUFFIXES or (kind == ".txt" and not _has_picture(path))):
                yield str(path), path

    def sample(self, where: str, raw: Path) -> Sample:
        root = self.located(self.path)
        id = raw.relative_to(root).as_posix()
        if raw.suffix.lower() == ".txt":
            raise BadRow("no_picture", "a text without a picture of the same name", id)
        try:
            words = caption(raw.with_suffix(".txt").read_text(encoding="utf-8"), self.max_caption_chars)
        except FileNotFoundError:
            raise BadRow("no_caption", f"no {raw.stem}.txt beside it", id) from None
        except UnicodeDecodeError as error:
            raise BadRow("not_text", f"{raw.stem}.txt is not UTF-8 at byte {error.start}", id) from None
        except BadRow as bad:
            raise BadRow(bad.reason, bad.detail, id) from None
        return pair(id, (ImageRef(str(raw)),), words, self.name or root.resolve().name, {})


def _has_picture(text: Path) -> bool:
    return any(text.with_suffix(suffix).is_file() for kind in PICTURE_SUFFIXES for suffix in (kind, kind.upper()))


USE = Folder
