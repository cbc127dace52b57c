"""A picture's reference in, a small copy of it as a data address out: what self-contained HTML pages show."""

from __future__ import annotations

import base64
import io

from bunny.core.types import ImageRef


def thumbnail(ref: ImageRef, side: int = 96) -> str:
    """The picture, at most `side` pixels wide and high. Raises ImageError."""
    from bunny.data.images import open_image

    picture = open_image(ref, at_least=side)
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=70)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
