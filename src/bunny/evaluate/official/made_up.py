"""Small made-up files in the official layouts, for the shared suite (`Benchmark.example`)."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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


def write_json(path: Path, tree: Any) -> None:
    """One JSON document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
