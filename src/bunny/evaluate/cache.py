"""Answers that were given before: an append-only file, so that a killed evaluation goes on where it stopped.

In: who answers, what is asked, with which settings. Out: the answer if it was given before. One JSON line an answer,
written by a single system call the moment it is known; a line torn by a killed process is left out and counted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.store import fingerprint_files
from bunny.core.types import ImageRef, Question


class AnswerCache:
    """The answers in one JSONL file; made with its folder at the first `put`.

    torn: lines that could not be read back (at most one per kill).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = 0
        self._answers: dict[str, str] = {}
        self._marks: dict[str, str] = {}
        self._load()

    def __len__(self) -> int:
        return len(self._answers)

    def key(self, answerer: str, question: Question, settings: Any = None) -> str:
        """sha256 of answerer name, prompt, pictures and settings: what an answer depends on, and nothing else.

        A picture counts by its file's name and content (size and time for files above 1 MiB), not by its folder.
        settings: anything JSON-able, or a dataclass such as `GenerationSettings`.
        """
        if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
            settings = dataclasses.asdict(settings)
        pictures = [self._mark(image) for image in question.images]
        text = json.dumps([answerer, question.prompt, pictures, settings], sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, key: str) -> str | None:
        """The answer's text, or None."""
        return self._answers.get(key)

    def put(self, key: str, question_id: str, text: str) -> None:
        """Remember an answer, in the file before this returns. Raises UserError if the file cannot be written."""
        line = json.dumps({"key": key, "id": question_id, "text": text}).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(line)
        except OSError as error:
            raise UserError(
                f"{self.path}: answers cannot be kept there: {error.strerror}",
                fix="make room or choose another folder; answers so far are kept",
            ) from error
        self._answers[key] = text

    def _load(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        for line in content.splitlines():
            row = _row(line)
            if row is None:
                self.torn += 1
            else:
                self._answers[row["key"]] = row["text"]
        if self.torn:
            log.warning("%s: %d torn line(s) left out; those questions are asked again", self.path, self.torn)
        if content and not content.endswith(b"\n"):  # the next answer must not continue a torn line
            with self.path.open("ab") as file:
                file.write(b"\n")
                os.fsync(file.fileno())

    def _mark(self, image: ImageRef) -> str:
        if image.path not in self._marks:
            path = Path(image.path)
            self._marks[image.path] = fingerprint_files([path]) if path.is_file() else image.path
        return f"{self._marks[image.path]}#{image.member}#{image.column}"


def _row(line: bytes) -> dict[str, str] | None:
    """The line's key and text, or None if it is no whole record."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("key"), str) and isinstance(row.get("text"), str)
    return row if whole else None
