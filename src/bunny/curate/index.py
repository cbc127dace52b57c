"""One shard of a source, read once: rows in, samples in pieces on disk out, before any picture is decoded.

In: the rows that a source yields. Out: a folder with `00000/`, `00001/`, … (samples, facts and rejected rows of so
many samples each, and where their vectors are if they exist) and `index.json`. What cannot be read is listed in it.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from bunny.core.errors import UserError
from bunny.core.publishing import publish
from bunny.core.sample_table import write_samples
from bunny.core.store import trouble
from bunny.core.types import IMAGE_MARK, IntArray, Rejected, Sample, StoredVectors
from bunny.curate.parts import FACTS, NUMBERS, REJECTED, SAMPLES, TEXTS, VECTORS, write_facts, write_rejected
from bunny.curate.storable import tellable, unstorable

INDEX = "index.json"
BATCH = 2048  # samples whose facts wait for their column

UNREADABLE = (UserError, OSError, ValueError, EOFError, KeyError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged file raises (Arrow's errors are ValueErrors and OSErrors)."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """What a finished index says. parts: of each its digest, which changes with anything that its vectors are made
    from; rows: of each its samples; stored: kind of vector -> the file that they are in; failed: why the shard gave no
    row, empty if it did."""

    parts: tuple[str, ...]
    rows: tuple[int, ...]
    stored: Mapping[str, str]
    failed: str = ""


def read_index(folder: Path) -> Indexed:
    """The index that `write_index` left in a folder."""
    told = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return Indexed(tuple(told["parts"]), tuple(told["rows"]), told["stored"], told["failed"])


def write_index(
    rows: Iterator[Sample | Rejected], stored: Mapping[str, StoredVectors], output: Path, part_rows: int, where: str
) -> None:
    """Read the rows to their end and publish them in parts of `part_rows` samples, at least one.

    where: what to call the shard if it cannot be read; the rows before the damage count.
    """
    feed = _Feed(rows, where, output.parent)
    parts: list[str] = []
    counts: list[int] = []
    files = {name: str(vectors.path.absolute()) for name, vectors in stored.items()}
    ages = str({name: file_age(path) for name, path in files.items()}).encode()
    with publish(output) as work:
        work.mkdir()
        while (first := next(feed, None)) or feed.rejected or not parts:
            some = chain([first], islice(feed, part_rows - 1)) if first else iter(())
            digest, numbers = _write_part(some, feed, work / f"{len(parts):05d}", ages)
            for name, vectors in stored.items():
                places = numbers if vectors.rows is None else _looked_up(vectors.rows, numbers)
                np.save(work / f"{len(parts):05d}" / f"{name}.rows.npy", places)
            parts.append(digest)
            counts.append(len(numbers))
        told = Indexed(tuple(parts), tuple(counts), files, "" if any(counts) else feed.failed)
        (work / INDEX).write_text(json.dumps(asdict(told)), encoding="utf-8")


def write_failed_index(output: Path, where: str, error: Exception) -> None:
    """The index of a shard that cannot even be opened: one rejected row."""

    def fails() -> Iterator[Sample | Rejected]:
        raise error
        yield

    write_index(fails(), {}, output, 1, where)


def _looked_up(rows: IntArray, numbers: IntArray) -> IntArray:
    """Vector rows of the source's rows; -1 for those beyond the end."""
    inside = numbers < len(rows)
    found = np.full(len(numbers), -1, np.int64)
    found[inside] = rows[numbers[inside]]
    return found


class _Feed:
    """(row number, sample) of the usable rows; the others wait in `rejected`. A failure of the source ends it."""

    def __init__(self, rows: Iterator[Sample | Rejected], where: str, disk: Path) -> None:
        self.rejected: list[Rejected] = []
        self.failed = ""
        self._rows, self._where, self._disk, self._number = rows, where, disk, -1

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> tuple[int, Sample]:
        while True:
            row = self._next()
            self._number += 1
            bad = tellable(row) if isinstance(row, Rejected) else unstorable(row)
            if bad is None:
                assert isinstance(row, Sample)
                return self._number, row
            self.rejected.append(bad)

    def _next(self) -> Sample | Rejected:
        try:
            return next(self._rows)
        except UNREADABLE as error:
            if trouble(error.__cause__ or error, self._disk):  # a full disk is no fault of the shard
                raise
            self.failed = " ".join(str(error).split()) or type(error).__name__
            self.rejected.append(tellable(Rejected(self._where, self._where, "unreadable_shard", self.failed)))
            self._rows = iter(())
            raise StopIteration from None


def _write_part(rows: Iterator[tuple[int, Sample]], feed: _Feed, folder: Path, ages: bytes) -> tuple[str, IntArray]:
    """One part's samples, facts and rejected rows; its digest, and the rows' numbers in the source.

    ages: of the files that hold the vectors.
    """
    folder.mkdir()
    facts, numbers, digest = FactColumns(), array("q"), hashlib.sha256(ages)
    age = lru_cache(maxsize=64)(file_age)  # many pictures lie in one file

    def passing() -> Iterator[Sample]:
        for number, sample in rows:
            numbers.append(number)
            facts.add(sample)
            digest.update(identity(sample, age))
            yield sample

    write_samples(folder / SAMPLES, passing())
    write_facts(folder / FACTS, facts.table())
    write_rejected(folder / REJECTED, feed.rejected)
    for item in feed.rejected:
        digest.update(repr(item).encode("utf-8", "replace"))
    feed.rejected.clear()
    return digest.hexdigest()[:24], np.array(numbers, dtype=np.int64)


def identity(sample: Sample, age: Callable[[str], tuple[int, int]]) -> bytes:
    """All of a sample, and how old its pictures are: a changed picture is embedded again."""
    return f"{sample!r}\0{[age(ref.path) for ref in sample.images]}\0".encode("utf-8", "replace")


def file_age(path: str) -> tuple[int, int]:
    """(bytes, nanoseconds since 1970) of a file, zeros if there is none."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


class FactColumns:
    """Collects what the pool's columns hold of samples: id, source, caption, all numbers and words of their meta,
    and `question`: what a conversation's user says."""

    def __init__(self) -> None:
        self._waiting: list[Sample] = []
        self._tables: list[Any] = []

    def add(self, sample: Sample) -> None:
        self._waiting.append(sample)
        if len(self._waiting) == BATCH:
            self._flush()

    def table(self) -> Any:
        """Arrow table of all that was added; a key that only some samples have is null elsewhere."""
        import pyarrow as pa

        self._flush()
        kinds: dict[str, Any] = {}
        for table in self._tables:
            for field in table.schema:
                kinds[field.name] = _common(kinds.get(field.name, field.type), field.type)
        ordered = {name: kinds[name] for name in (*TEXTS, *NUMBERS)} | dict(sorted(kinds.items()))
        schema = pa.schema(list(ordered.items()))
        return pa.concat_tables([_as(table, schema) for table in self._tables]).combine_chunks()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._waiting and self._tables:
            return
        some, self._waiting = self._waiting, []
        columns = {
            "id": pa.array([sample.id for sample in some], pa.string()),
            "source": pa.array([sample.source for sample in some], pa.string()),
            "caption": pa.array([sample.text for sample in some], pa.string()),
            "sha256": pa.array([_digest(sample) for sample in some], pa.string()),
            "phash": pa.nulls(len(some), pa.uint64()),
            "pair_cosine": pa.array(np.full(len(some), np.nan, np.float32)),
        }
        for name in ("width", "height"):
            columns[name] = pa.array([_side(sample, name) for sample in some], pa.int32())
        for key in sorted({str(key) for sample in some for key in sample.meta} - {*TEXTS, *NUMBERS, *VECTORS}):
            column = _column([sample.meta.get(key) for sample in some])
            if column is not None:
                columns[key] = column
        asked = [_question(sample) for sample in some]
        if any(asked):
            columns.setdefault("question", pa.array(asked, pa.string()))
        self._tables.append(pa.table(columns))


def _question(sample: Sample) -> str:
    """What a conversation's user says, without the places of pictures."""
    asked = (turn.text.replace(IMAGE_MARK, "").strip() for turn in sample.turns if turn.role == "user")
    return "\n".join(text for text in asked if text)


def _digest(sample: Sample) -> str:
    """The source's own SHA-256 of the picture's file, which serves until the pixels are decoded."""
    told = sample.meta.get("sha256")
    return told if isinstance(told, str) and len(told) == 64 else ""


def _side(sample: Sample, name: str) -> int:
    """The picture's size as the source tells it (img2dataset: before resizing, LAION: WIDTH); 0 where it does not."""
    for key in (f"original_{name}", name, name.upper()):
        value = sample.meta.get(key)
        if isinstance(value, int | float) and 0 < value < 2**31:
            return int(value)
    return 0


def _column(values: list[Any]) -> Any:
    """Values of one key as int64, float64 or string, null where there is none; None if they are lists or the like."""
    import pyarrow as pa

    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    found = {type(value) for value in values if value is not None}
    if not found or not found <= {bool, int, float, str}:
        return None
    if found <= {bool, int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pa.array([None if value is None else int(value) for value in values], pa.int64())
    if str not in found:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    words = [None if value is None else str(value).encode("utf-8", "replace").decode() for value in values]
    return pa.array(words, pa.string())


def _common(one: Any, other: Any) -> Any:
    """The narrowest kind that holds both."""
    import pyarrow as pa

    if one == other:
        return one
    return pa.string() if pa.string() in (one, other) else pa.float64()


def _as(table: Any, schema: Any) -> Any:
    """The table with the schema's columns in its order, null where it has none."""
    import pyarrow as pa

    return pa.table(
        [
            table.column(field.name).cast(field.type, safe=False)
            if field.name in table.column_names
            else pa.nulls(len(table), field.type)
            for field in schema
        ],
        schema=schema,
    )
