"""What a benchmark needs and does not have: files, numbers of rows, hashes, and where to get them. Downloads nothing.

In: a benchmark (its `FILES`). Out: one line per file: there, missing, incomplete or changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bunny.core.errors import UserError
from bunny.evaluate.files import jsonl_of, table_of
from bunny.evaluate.official.benchmark import DataFile, OfficialBenchmark

State = Literal["there", "missing", "other count", "changed", "unreadable"]


@dataclass(frozen=True)
class Found:
    """The state of one file. detail: counts or hashes that do not agree."""

    task: str
    file: DataFile
    path: Path
    state: State
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """What `bunny eval doctor --json` prints of a file."""
        return {
            "task": self.task,
            "path": str(self.path),
            "state": self.state,
            "detail": self.detail,
            "needed_to": "ask a model" if self.file.pictures else "ask and to score",
            "get_it_from": self.file.link,
        }


def examine(benchmark: OfficialBenchmark, folder: Path) -> list[Found]:
    """The state of every file that the benchmark names, in that folder, which need not be there."""
    return [_examine(benchmark.name, known, folder) for known in benchmark.FILES]


def _examine(task: str, known: DataFile, folder: Path) -> Found:
    found = sorted(folder.glob(known.path)) if "*" in known.path else [folder / known.path]
    path = found[0] if found else folder / known.path
    if not path.exists():
        return Found(task, known, path, "missing")
    if path.is_dir():
        entries = sum(1 for _ in path.iterdir())
        few = known.rows is not None and entries < known.rows
        return Found(task, known, path, "other count" if few or not entries else "there", f"{entries} entries")
    if known.sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != known.sha256:
        return Found(task, known, path, "changed", _count(path, known) or "not the official file's sha256")
    try:
        detail = _count(path, known)
    except UserError as error:
        return Found(task, known, path, "unreadable", error.what)
    return Found(task, known, path, "other count" if detail else "there", detail)


def _count(path: Path, known: DataFile) -> str:
    """`300 of 8910 rows`, or nothing where the count is right or not known."""
    if known.rows is None:
        return ""
    rows = _rows(path)
    return "" if rows is None or rows == known.rows else f"{rows} of {known.rows} rows"


def _rows(path: Path) -> int | None:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    if path.suffix in (".tsv", ".csv"):
        return len(table_of(path))
    if path.suffix == ".jsonl":
        return len(jsonl_of(path))
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return len(jsonl_of(path))  # JSON lines under the name `.json`, as POPE has them
    if isinstance(tree, dict):
        lists = [value for value in tree.values() if isinstance(value, list)]
        return max(map(len, lists)) if lists else len(tree)
    return len(tree)
