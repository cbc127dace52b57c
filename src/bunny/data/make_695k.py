"""Bunny-695K made from its two sources: SVIT-mix-665K without ShareGPT-40K, and WizardLM-evol-instruct-70K.

In: both as they are published. Out: one file of LLaVA JSON: the kept rows of SVIT in their order, then WizardLM's in
theirs (training shuffles). Rows that cannot be used are counted and listed beside the file.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import IMAGE_MARK, Rejected
from bunny.data.json_rows import tracked_rows
from bunny.data.reading import Reading
from bunny.data.sources._rows import BadRow, checked
from bunny.data.sources.llava_json import conversation

SHAREGPT_ROWS, WIZARD_ROWS = 40_688, 70_000
"""Rows without a picture in LLaVA's 665K, kept by SVIT-mix (github.com/haotian-liu/LLaVA/issues/702); WizardLM's."""
FAR = 0.05
"""Share by which a count may differ before it is warned of."""
ANY_LENGTH = 1 << 30


@dataclass
class Made:
    """What went into the file. `rejected` are rows of either source that are not in it though they should be."""

    path: Path
    kept: int = 0  # rows of SVIT with a picture
    dropped: int = 0  # rows of SVIT without one
    added: int = 0  # rows of WizardLM
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.kept + self.added

    @property
    def reasons(self) -> Mapping[str, int]:
        return dict(Counter(row.reason for row in self.rejected).most_common())

    @property
    def rejected_path(self) -> Path:
        """The list of rejected rows; only there if there are any."""
        return self.path.with_suffix(".rejected.jsonl")


def make_695k(svit: Path, wizard: Path, out: Path) -> Made:
    """Write `out`, whole or not at all.

    From SVIT-mix-665K the rows without `image` are left out: they are ShareGPT-40K, its only part without pictures
    (it is LLaVA's 665K whose LLaVA-Instruct-150K became SVIT-core-150K: arxiv.org/abs/2307.04087). WizardLM's rows are
    `{instruction, output}` or `{conversations}`; they become `wizardlm_0`, `wizardlm_1` … by their place in the file,
    as in the released set (github.com/BAAI-DCAI/Bunny/issues/139). Raises UserError.
    """
    if out.exists():
        raise UserError(f"{out}: is there already", fix="delete it, or choose another name with -o")
    made = Made(out)
    with _whole(out) as file:
        for row in _svit_rows(svit, made):
            _write(file, row, made.rows == 1)
        for row in _wizard_rows(wizard, made):
            _write(file, row, made.rows == 1)
        file.write("\n]\n")
        for what, count, path in (("row with a picture", made.kept, svit), ("usable row", made.added, wizard)):
            if not count:
                raise UserError(f"{path}: no {what}", fix="check that it is the right file")
    _warn("rows without a picture left out of SVIT", made.dropped, SHAREGPT_ROWS)
    _warn("rows of WizardLM added", made.added, WIZARD_ROWS)
    if made.rejected:
        Reading([], made.rejected).write_rejected(made.rejected_path)
        log.warning("%d rows cannot be used: %s (%s)", len(made.rejected), made.reasons, made.rejected_path)
    return made


def _svit_rows(path: Path, made: Made) -> Iterator[dict[str, Any]]:
    """The rows with a picture, as they are written there."""
    for where, raw in _rows(path):
        try:
            row = _object(raw)
            if not row.get("image"):
                made.dropped += 1
                continue
            conversation(row.get("conversations"), ANY_LENGTH)
        except BadRow as bad:
            made.rejected.append(_rejected(raw, where, bad))
            continue
        made.kept += 1
        yield row


def _wizard_rows(path: Path, made: Made) -> Iterator[dict[str, Any]]:
    """WizardLM's rows as LLaVA JSON without a picture."""
    for number, (where, raw) in enumerate(_rows(path)):
        try:
            talk = _talk(_object(raw))
            if any(IMAGE_MARK in turn.text for turn in conversation(talk, ANY_LENGTH)):
                raise BadRow("image_marks", f"{IMAGE_MARK} in a row without a picture")
        except BadRow as bad:
            made.rejected.append(_rejected(raw, where, bad))
            continue
        made.added += 1
        yield {"id": f"wizardlm_{number}", "conversations": talk}


def _talk(row: Mapping[str, Any]) -> list[Any]:
    """The conversation of a row: its own, or its instruction and output. Raises BadRow."""
    if isinstance(row.get("conversations"), list):
        return list(row["conversations"])
    texts = (row.get("instruction"), row.get("output"))
    if not all(isinstance(text, str) for text in texts):
        raise BadRow("malformed_row", f"neither `conversations` nor `instruction` and `output`: {', '.join(row)[:80]}")
    question, answer = (checked(str(text), ANY_LENGTH) for text in texts)
    if not question.strip():
        raise BadRow("empty_question")
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, row) of a file, with progress."""
    if not path.is_file():
        raise UserError(f"{path}: no such file", fix="check the path")
    for line, row in tracked_rows(path):
        yield f"{path}:{line}", row


def _object(raw: Any) -> dict[str, Any]:
    if isinstance(raw, BadRow):
        raise raw
    if not isinstance(raw, dict):
        raise BadRow("malformed_row", "not a JSON object")
    return raw


def _rejected(raw: Any, where: str, bad: BadRow) -> Rejected:
    id = str(raw["id"]) if isinstance(raw, dict) and raw.get("id") is not None else where
    return Rejected(id, where, bad.reason, bad.detail)


def _write(file: TextIO, row: Mapping[str, Any], first: bool) -> None:
    file.write("[\n" if first else ",\n")
    json.dump(row, file)


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A file that takes its place only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _warn(what: str, count: int, expected: int) -> None:
    if abs(count - expected) > FAR * expected:
        log.warning("%d %s, expected about %d: check that it is the right file", count, what, expected)
