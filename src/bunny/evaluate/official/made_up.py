"""Small made-up files in the official layouts, for the shared suite (`Benchmark.example`)."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image


def picture(path: Path, number: int) -> Path:
    """A picture of 8×8 pixels of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (40 * number % 256, 0, 90)).save(path)
    return path


def picture_base64(number: int) -> str:
    """The same as base64 text."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (40 * number % 256, 0, 90)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
