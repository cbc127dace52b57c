"""Shards, each written whole or not at all, and never twice.

In: samples in order and a function that writes one shard. Out: numbered shards, and `.written.jsonl` beside them, which
says from what each was made: a killed export goes on behind its last whole shard, changed samples are written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.sample_table import json_value
from bunny.core.store import fingerprint, trouble
from bunny.core.types import Rejected, Sample

JOURNAL = ".written.jsonl"

Item = TypeVar("Item")
Write = Callable[[Sequence[Sample], Path, str], list[Rejected]]
"""Fills a folder with one shard's files: (its samples, the folder, the shard's name) -> what could not be written."""


def write_shards(
    samples: Iterable[Sample], folder: Path, size: int, settings: Any, write: Write, know: Callable[..., Any]
) -> list[Rejected]:
    """Write the samples in shards of `size`; the rejected ones of all shards, written now or before.

    settings: JSON-able, know(ids): whatever else goes into a shard; a shard is kept as long as these, its samples and
    the files of its pictures stay the same. Shards of an earlier, longer export are removed.
    """
    rejected: list[Rejected] = []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        before, names = _read(folder / JOURNAL), set()
        for number, some in enumerate(batches(samples, size)):
            name = f"{number:05d}"
            names.add(name)
            mark = fingerprint(name, [settings, know([one.id for one in some])], _marks(some))
            entry = before.get(name)
            if entry is None or entry["key"] != mark or not _there(folder, entry):
                entry = {"shard": name, "key": mark, **_publish(some, folder, name, write)}
                _add(folder / JOURNAL, entry)
            else:
                log.info("%s: written before, kept", folder / name)
            rejected += [Rejected(**item) for item in entry["rejected"]]
        _remove_others(folder, before, names)
    return rejected


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; the last one may be shorter."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns a full or read-only disk into a UserError that names the place."""
    try:
        yield
    except OSError as error:
        there = next(one for one in (folder, *folder.resolve().parents) if one.is_dir())
        if told := trouble(error, there):
            raise UserError(told, fix="make room there or choose another folder; finished work is kept") from error
        raise


def _publish(some: Sequence[Sample], folder: Path, name: str, write: Write) -> dict[str, Any]:
    """Write one shard in a folder of its own, then rename its files into place, in order of their names."""
    work = folder / f".{name}"
    _clear(work)
    work.mkdir()
    try:
        rejected = write(some, work, name)
        files = {file.name: file.stat().st_size for file in sorted(work.iterdir())}
        for file in files:
            (work / file).replace(folder / file)
    finally:
        _clear(work)
    return {"files": files, "rejected": [asdict(item) for item in rejected]}


def _clear(work: Path) -> None:
    if work.is_dir():
        for file in work.iterdir():
            file.unlink()
        work.rmdir()


def _marks(some: Sequence[Sample]) -> dict[str, str]:
    """What the samples say, and size and time of the files that hold their pictures."""
    files = sorted({ref.path for sample in some for ref in sample.images})
    rows = [[one.id, [str(ref) for ref in one.images], one.turns, one.source, dict(one.meta)] for one in some]
    return {
        "samples": fingerprint("", json.loads(json.dumps(rows, default=_plain)), {}),
        "files": fingerprint("", [_stamp(Path(file)) for file in files], {}),
    }


def _plain(value: Any) -> Any:
    return asdict(value) if hasattr(value, "__dataclass_fields__") else json_value(value)


def _stamp(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _there(folder: Path, entry: Mapping[str, Any]) -> bool:
    sizes: Mapping[str, int] = entry["files"]
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def _read(journal: Path) -> dict[str, Any]:
    """Shard -> its latest entry; a line that a killed process left half written does not count."""
    entries: dict[str, Any] = {}
    if journal.exists():
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                entries[entry["shard"]] = entry
            except (ValueError, KeyError):
                log.warning("%s: a line is damaged, its shard is written again", journal)
    return entries


def _add(journal: Path, entry: Mapping[str, Any]) -> None:
    torn = journal.exists() and not journal.read_bytes().endswith(b"\n")
    with journal.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _remove_others(folder: Path, before: Mapping[str, Any], names: set[str]) -> None:
    for name in sorted(set(before) - names):
        log.info("%s: of an earlier, longer export, removed", folder / name)
        for file in before[name]["files"]:
            (folder / file).unlink(missing_ok=True)
