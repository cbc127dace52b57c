"""Samples as LLaVA users keep them: a JSON list and a folder of picture files.

In: `Sample`s. Out: files that `{use: llava_json}`, LLaVA and the original Bunny read. Pictures are copied byte for
byte, named by their content, each once. An image-text pair becomes `<image>` -> caption, as in LLaVA's alignment sets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bunny.core.protocols import Facts
from bunny.core.publishing import publish
from bunny.core.recipe import Section
from bunny.core.sample_table import json_value
from bunny.core.types import IMAGE_MARK, ImageRef, Rejected, Sample, Turn
from bunny.data.containers import ImageError
from bunny.data.writers._pictures import encoded
from bunny.data.writers._shards import batches, writing

ROWS_AT_ONCE = 1000
_FROM = {"user": "human", "assistant": "gpt", "system": "system"}


class LlavaJson(Section):
    """`{use: llava_json}`"""

    file: str = "samples.json"
    images: str = "images"  # folder beside it

    def write(self, samples: Iterator[Sample], folder: Path, facts: Facts | None = None) -> list[Rejected]:
        """Write the list and its pictures; the samples with a picture that cannot be read, with reasons.

        Pictures of an earlier, killed export are not written again.
        """
        rejected: list[Rejected] = []
        with writing(folder), publish(folder / self.file) as temporary:
            (folder / self.images).mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                gap = "[\n"
                for row in self._rows(samples, folder, facts, rejected):
                    file.write(gap + json.dumps(row, default=json_value))
                    gap = ",\n"
                file.write(("[" if gap == "[\n" else "") + "\n]\n")
        return rejected

    def _rows(
        self, samples: Iterator[Sample], folder: Path, facts: Facts | None, rejected: list[Rejected]
    ) -> Iterator[dict[str, Any]]:
        for some in batches(samples, ROWS_AT_ONCE):
            scores = facts.rows([one.id for one in some]).to_pylist() if facts else [None] * len(some)
            names: dict[ImageRef, str] = {}
            for sample, score in zip(some, scores, strict=True):
                try:
                    for ref in sample.images:
                        if ref not in names:
                            names[ref] = _copy(ref, folder / self.images)
                except ImageError as error:
                    rejected.append(Rejected(sample.id, error.where, error.reason, error.detail))
                    continue
                yield _row(sample, [names[ref] for ref in sample.images], score)


def _copy(ref: ImageRef, folder: Path) -> str:
    """Raises ImageError."""
    picture = encoded(ref)
    name = f"{picture.sha256[:32]}.{picture.suffix}"
    target = folder / name
    if not target.exists():
        temporary = folder / f".{name}.{os.getpid()}"
        try:
            temporary.write_bytes(picture.data)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return name


def _row(sample: Sample, images: Sequence[str], score: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"id": sample.id}
    if images:
        row["image"] = images[0] if len(images) == 1 else list(images)
    row["conversations"] = [{"from": _FROM[turn.role], "value": turn.text} for turn in _from_question(sample)]
    if sample.source:
        row["source"] = sample.source
    if sample.meta:
        row["meta"] = dict(sample.meta)
    if score:
        row["scores"] = score
    return row


def _from_question(sample: Sample) -> tuple[Turn, ...]:
    """LLaVA conversations start with the user; a pair's answer gets a bare picture before it."""
    if sample.turns and sample.turns[0].role == "assistant":
        return (Turn("user", "\n".join([IMAGE_MARK] * len(sample.images))), *sample.turns)
    return sample.turns


USE = LlavaJson
