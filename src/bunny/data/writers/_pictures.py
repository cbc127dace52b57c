"""A picture as it is exported: its bytes as stored, never encoded again, and what its header says of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from bunny.core.types import ImageRef
from bunny.data.containers import image_bytes
from bunny.data.images import image_header

_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2", "TIFF": "tif"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """data: the file's bytes. suffix: of its format, without a dot. width, height: pixels, upright."""

    data: bytes
    suffix: str
    width: int
    height: int

    @property
    def sha256(self) -> str:
        """Hex digest of the encoded bytes."""
        return hashlib.sha256(self.data).hexdigest()


def encoded(ref: ImageRef) -> Encoded:
    """The stored picture. Raises ImageError if there is none or its header is no picture's."""
    data = image_bytes(ref)
    kind, (width, height) = image_header(data, str(ref))
    return Encoded(data, _SUFFIXES.get(kind, kind.lower()), width, height)
