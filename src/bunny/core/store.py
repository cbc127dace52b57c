"""Artifacts on disk: a folder with a `manifest.json` that says what made it, from what, with which settings.

In: a name, the settings, the input artifacts, a function that fills a folder. Out: an `Artifact`. The same
fingerprint is never made again; half-made work stays in its own folder and is finished, not restarted;
publishing is one rename, so a killed process leaves either the old artifact or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bunny.core.errors import UserError
from bunny.core.log import log

MANIFEST = "manifest.json"
CLOCK = ".seconds"
NO_WRITE = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT)
ALMOST_NOTHING = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished folder and its manifest."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @property
    def seconds(self) -> float:
        """Wall time it took to make, over all interrupted attempts."""
        return float(self.manifest.get("seconds", 0.0))

    @staticmethod
    def load(path: Path) -> Artifact:
        """The artifact at `path`. Raises UserError if there is none or its manifest is damaged."""
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no {MANIFEST} there", fix="run the stage that makes it first") from None
        except ValueError as error:
            raise UserError(f"{path / MANIFEST}: damaged ({error})", fix="delete the folder and run again") from None
        if not isinstance(manifest, dict) or "fingerprint" not in manifest:
            raise UserError(f"{path / MANIFEST}: damaged (no fingerprint)", fix="delete the folder and run again")
        return Artifact(path, manifest)


def fingerprint(stage: str, settings: Any, inputs: Mapping[str, str]) -> str:
    """24 hex digits that change if and only if the stage, its settings or its inputs change."""
    text = json.dumps([stage, settings, sorted(inputs.items())], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def fingerprint_files(paths: Sequence[Path]) -> str:
    """Fingerprint of files by name, size and modification time (contents of small ones)."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        stat = path.stat()
        small = stat.st_size <= 1 << 20
        mark = hashlib.sha256(path.read_bytes()).hexdigest() if small else f"{stat.st_size}:{stat.st_mtime_ns}"
        digest.update(f"{path.name}\0{mark}\n".encode())
    return digest.hexdigest()[:24]


class Store:
    """A run folder: artifacts by name, one per stage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            (root / ".lock").touch()
        except OSError as error:
            raise UserError(
                f"cannot write to {root}: {error.strerror}", fix="choose another folder with --output"
            ) from None

    def make(
        self,
        name: str,
        build: Callable[[Path], Mapping[str, Any] | None],
        *,
        settings: Any,
        inputs: Mapping[str, str] | None = None,
    ) -> Artifact:
        """The artifact `name`, made by `build(folder)` unless one with the same fingerprint is there.

        build: fills the folder and returns facts for the manifest. It may find its own unfinished work there.
        settings: JSON-able; inputs: name -> fingerprint of what it is made from.
        """
        inputs = dict(inputs or {})
        mark = fingerprint(name, settings, inputs)
        final, work = self.root / name, self.root / f".{name}.{mark}"
        with self._alone(name):
            if (final / MANIFEST).exists() and (done := Artifact.load(final)).fingerprint == mark:
                log.info("%s: done before, kept (%s)", name, final)
                return done
            if work.exists():
                log.info("%s: goes on from unfinished work", name)
            return self._build(name, build, final, work, {"settings": settings, "inputs": inputs, "fingerprint": mark})

    def _build(
        self,
        name: str,
        build: Callable[[Path], Mapping[str, Any] | None],
        final: Path,
        work: Path,
        facts: dict[str, Any],
    ) -> Artifact:
        try:
            if not (work / MANIFEST).exists():  # else it was killed between finishing and publishing
                work.mkdir(parents=True, exist_ok=True)
                with _Clock(work / CLOCK) as clock:
                    more = dict(build(work) or {})
                manifest = {"name": name, **facts, "seconds": clock.total, "machine": platform.machine(), **more}
                (work / CLOCK).unlink(missing_ok=True)
                write_atomic(work / MANIFEST, json.dumps(manifest, indent=1, default=str))
            publish(work, final)
        except Exception as error:
            if told := trouble(error, self.root):
                raise UserError(
                    f"{name}: {told}",
                    fix="make room there or choose another folder with --output; finished work is kept",
                ) from error
            raise
        for stale in self.root.glob(f".{name}.*"):
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
        return Artifact.load(final)

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        lock = FileLock(self.root / ".lock", timeout=0.1)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"{self.root}: another process is at work there (wanted: {name})",
                fix="wait for it, or choose another folder with --output",
            ) from None
        try:
            yield
        finally:
            lock.release()


class _Clock:
    """Adds up wall time over interrupted attempts, in a small file beside the work.

    An attempt that was killed without a word counts up to the last file it wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.total = 0.0
        if path.exists():
            before, started, ended = (float(word) for word in path.read_text().split())
            self.total = before + max(0.0, (ended or _newest(path.parent)) - started)

    def __enter__(self) -> _Clock:
        self._start = time.monotonic()
        self._before, self._started = self.total, time.time()
        write_atomic(self.path, f"{self._before} {self._started} 0")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        spent = time.monotonic() - self._start
        self.total = self._before + spent
        if kind is not None and not issubclass(kind, OSError):  # a full disk cannot take it
            write_atomic(self.path, f"{self._before} {self._started} {self._started + spent}")


def _newest(folder: Path) -> float:
    """When a file in the folder was last written, in seconds since 1970."""
    return max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=0.0)


def trouble(error: BaseException, folder: Path) -> str:
    """Where and why nothing can be written, if that is what the error is about; else empty.

    Libraries hide it: safetensors and torch raise their own kinds of error on a full disk.
    """
    if isinstance(error, OSError) and error.errno in NO_WRITE:
        return f"{error.filename or folder}: {os.strerror(error.errno)}"
    full = os.strerror(errno.ENOSPC)
    if full in str(error) or shutil.disk_usage(folder).free < ALMOST_NOTHING:
        return f"{folder}: {full}"
    return ""


def write_atomic(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary file beside it, flushed to disk, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def publish(work: Path, final: Path) -> None:
    """Put a finished folder in its place; an older one there goes away only after the new one is in place."""
    old = final.with_name(f".{final.name}.old.{os.getpid()}")
    if final.exists():
        final.rename(old)
    work.rename(final)
    shutil.rmtree(old, ignore_errors=True)
