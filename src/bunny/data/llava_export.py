"""Samples as LLaVA users keep them: a JSON list and a folder of picture files.

In: `Sample`s. Out: files that `{use: llava_json}`, LLaVA and the original Bunny read. Pictures are copied byte for
byte, named by their content, each once. An image-text pair becomes `<image>` -> caption, as in LLaVA's alignment sets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bunny.core.store import write_atomic
from bunny.core.types import IMAGE_MARK, ImageRef, Rejected, Sample, Turn
from bunny.data.containers import ImageError, image_bytes
from bunny.data.images import image_format
from bunny.data.sample_table import json_value

_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2", "TIFF": "tif"}
_FROM = {"user": "human", "assistant": "gpt", "system": "system"}


def write_llava_json(samples: Iterable[Sample], path: Path, image_folder: Path) -> list[Rejected]:
    """Write `path` and its pictures; the samples that could not be exported, with reasons."""
    image_folder.mkdir(parents=True, exist_ok=True)
    names: dict[ImageRef, str] = {}
    rows: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    for sample in samples:
        try:
            for ref in sample.images:
                if ref not in names:
                    names[ref] = _copy(ref, image_folder)
        except ImageError as error:
            rejected.append(Rejected(sample.id, error.where, error.reason, error.detail))
            continue
        rows.append(_row(sample, [names[ref] for ref in sample.images]))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "[\n" + ",\n".join(json.dumps(row, default=json_value) for row in rows) + "\n]\n")
    return rejected


def _copy(ref: ImageRef, folder: Path) -> str:
    data = image_bytes(ref)
    kind = image_format(data, str(ref))
    name = f"{hashlib.sha256(data).hexdigest()[:32]}.{_SUFFIXES.get(kind, kind.lower())}"
    target = folder / name
    if not target.exists() or target.stat().st_size != len(data):  # a killed run may have left half of it
        target.write_bytes(data)
    return name


def _row(sample: Sample, images: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": sample.id}
    if images:
        row["image"] = images[0] if len(images) == 1 else images
    row["conversations"] = [{"from": _FROM[turn.role], "value": turn.text} for turn in _from_question(sample)]
    if sample.source:
        row["source"] = sample.source
    if sample.meta:
        row["meta"] = dict(sample.meta)
    return row


def _from_question(sample: Sample) -> tuple[Turn, ...]:
    """LLaVA conversations start with the user; a pair's answer gets a bare picture before it."""
    if sample.turns and sample.turns[0].role == "assistant":
        return (Turn("user", "\n".join([IMAGE_MARK] * len(sample.images))), *sample.turns)
    return sample.turns
