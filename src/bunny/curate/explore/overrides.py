"""Second thoughts of a person: (id, keep or drop, note), appended line by line to `overrides.jsonl`.

The last line about an id counts; `keep: null` takes a thought back. A line torn by a crash is passed over.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import log

LONGEST_NOTE = 2000  # characters


@dataclass(frozen=True, slots=True)
class Override:
    """What somebody decided instead."""

    keep: bool
    note: str = ""


class Overrides:
    """The thoughts that count, by id. version: grows with every change."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = path, clock
        self.by_id: dict[str, Override] = {}
        self.version = 0
        for number, line in enumerate(_lines(path), start=1):
            try:
                said = json.loads(line)
                self._take(str(said["id"]), said["keep"], str(said.get("note", "")))
            except (ValueError, KeyError, TypeError):
                log.warning("%s, line %d: torn, passed over", path.name, number)

    def __len__(self) -> int:
        return len(self.by_id)

    def get(self, id: str) -> Override | None:
        return self.by_id.get(id)

    def add(self, id: str, keep: bool | None, note: str = "") -> None:
        """Write the thought down; it counts once it is on the disk. Raises UserError if it cannot be written."""
        note = note[:LONGEST_NOTE]
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock()))
        line: Mapping[str, Any] = {"id": id, "keep": keep, "note": note, "time": stamp}
        try:
            with self.path.open("ab+") as file:
                data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
                if file.tell() and not _ends_a_line(file):
                    data = b"\n" + data
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})", fix="free the disk") from None
        self._take(id, keep, note)

    def _take(self, id: str, keep: Any, note: str) -> None:
        if keep not in (True, False, None):
            raise ValueError(keep)
        if keep is None:
            self.by_id.pop(id, None)
        else:
            self.by_id[id] = Override(bool(keep), note)
        self.version += 1


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _lines(path: Path) -> list[bytes]:
    try:
        return [line for line in path.read_bytes().split(b"\n") if line.strip()]
    except FileNotFoundError:
        return []
