"""Answers that were given before: append-only files, so that a killed evaluation goes on where it stopped.

In: who answers, what is asked, with which settings. Out: the answer if it was given before. One JSON line an answer,
written by a single system call the moment it is known; a line torn by a killed process is left out and counted. Of
several processes each writes a file of its own (`answers.1.jsonl` beside `answers.jsonl`), and reads all.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import ImageRef, Question


class AnswerCache:
    """The answers in one JSONL file and its siblings of other processes; made with its folder at the first `put`.

    rank: this process's number; 0 writes to `path` itself. digest: a picture's content -> its hash (default: sha256
    of a plain file); it may raise UserError for a picture that cannot be read. torn: lines that could not be read back
    (at most one per kill).
    """

    def __init__(self, path: Path, rank: int = 0, digest: Callable[[ImageRef], str] | None = None) -> None:
        self.path = path if rank == 0 else path.with_suffix(f".{rank}{path.suffix}")
        self.torn = 0
        self._digest = digest or _plain_digest
        self._answers: dict[str, str] = {}
        self._marks: dict[ImageRef, str] = {}
        others = sorted(path.parent.glob(f"{glob.escape(path.stem)}.*{path.suffix}"))
        for file in dict.fromkeys([path, *others, self.path]):
            self._load(file)

    def __len__(self) -> int:
        return len(self._answers)

    def key(self, answerer: str, question: Question, settings: Any = None) -> str:
        """sha256 of answerer name, prompt, pictures and settings: what an answer depends on, and nothing else.

        A picture counts by its content, whatever its name and place; one that cannot be read by its name.
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

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        content = path.read_bytes()
        torn = 0
        for line in content.splitlines():
            row = _row(line)
            if row is None:
                torn += 1
            else:
                self._answers[row["key"]] = row["text"]
        if path != self.path:  # another process may be writing its last line now
            return
        self.torn = torn
        if torn:
            log.warning("%s: %d torn line(s) left out; those questions are asked again", path, torn)
        if content and not content.endswith(b"\n"):  # the next answer must not continue a torn line
            with path.open("ab") as file:
                file.write(b"\n")
                os.fsync(file.fileno())

    def _mark(self, image: ImageRef) -> str:
        if image not in self._marks:
            try:
                self._marks[image] = self._digest(image)
            except UserError:
                self._marks[image] = str(image)
        return self._marks[image]


def _plain_digest(image: ImageRef) -> str:
    """sha256 of a plain file; for a row of a container, of the whole container and which row."""
    path = Path(image.path)
    if not path.is_file():
        return str(image)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{content}#{image.member}#{image.column}" if image.member else content


def _row(line: bytes) -> dict[str, str] | None:
    """The line's key and text, or None if it is no whole record."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("key"), str) and isinstance(row.get("text"), str)
    return row if whole else None
