"""Picture files of one folder, by names that strangers give: nothing outside the folder is ever opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bunny.core.errors import UserError
from bunny.serve.failures import ApiError


class MediaFolder:
    """root: the folder. Raises UserError if it is none."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        if not self.root.is_dir():
            raise UserError(f"{root}: no such folder", fix="name a folder of pictures with --media-root")

    def read(self, name: str, most: int) -> bytes:
        """A file by its name in the folder, or its `file://` address. most: bytes.

        Raises ApiError 400, in the same words for what is missing and for what lies outside: neither tells of the
        files of this machine.
        """
        try:
            handle = self._open(self._inside(name))
            with os.fdopen(handle, "rb") as file:
                data = file.read(most + 1) if stat.S_ISREG(os.fstat(handle).st_mode) else None
        except (OSError, ValueError):
            data = None
        if data is None:
            raise ApiError(400, "there is no such picture in the media folder", code="invalid_image_url")
        if len(data) > most:
            raise ApiError(400, f"the picture is larger than {most >> 20} MiB", code="image_too_large")
        return data

    def _inside(self, name: str) -> list[str]:
        """The parts of a file's real path below the folder. Raises ValueError for one outside."""
        if name[:7].lower() == "file://":
            parts = urlsplit(name)
            if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
                raise ValueError(name)
            name = unquote(parts.path, errors="strict")
        real = Path(os.path.realpath(self.root / name))
        return list(real.relative_to(self.root).parts)

    def _open(self, parts: list[str]) -> int:
        """Step by step, following no link: one that was put there since the path was looked at leads nowhere."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        if os.open not in os.supports_dir_fd:  # Windows
            return os.open(self.root.joinpath(*parts), flags | getattr(os, "O_BINARY", 0))
        here = os.open(self.root, flags | os.O_DIRECTORY)
        for number, part in enumerate(parts):
            try:
                deeper = os.open(part, flags | (os.O_DIRECTORY if number < len(parts) - 1 else 0), dir_fd=here)
            finally:
                os.close(here)
            here = deeper
        return here
