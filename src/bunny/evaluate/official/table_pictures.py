"""Pictures that come as base64 in a table, written out once so that a model can be asked about them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from bunny.core.errors import UserError


def picture_path(folder: Path, encoded: str) -> Path:
    """Where a picture goes: one file for equal pictures, named by their content."""
    return folder / "pictures" / f"{hashlib.sha256(encoded.encode()).hexdigest()[:24]}.png"


def write_pictures(folder: Path, encoded: Iterable[str], where: str) -> None:
    """Write those that are not there yet. Raises UserError for text that is no base64, and for a full folder."""
    for number, text in enumerate(encoded, 1):
        path = picture_path(folder, text)
        if path.exists():
            continue
        try:
            content = base64.b64decode(text, validate=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}")
            part.write_bytes(content)
            part.replace(path)
        except (binascii.Error, ValueError):
            raise UserError(f"{where}: picture {number} is no base64", fix="get the file again") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}", fix="make the folder writable") from None
