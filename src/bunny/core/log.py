"""Words for people: one logger and one kind of progress bar (with ETA); figures go to `metrics.jsonl`."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")

log = logging.getLogger("bunny")
console = Console(stderr=True)
PLAIN_LINE_SECONDS = 10.0


def set_up(level: str = "INFO") -> None:
    """Route the `bunny` logger to the terminal (standard error; standard output stays for results)."""
    log.setLevel(level)
    if not log.handlers:
        log.addHandler(_handler())
        log.propagate = False


def _handler() -> logging.Handler:
    """Colours on a terminal; elsewhere plain lines, which nothing wraps at 80 columns."""
    if sys.stderr.isatty():
        return RichHandler(console=console, show_path=False, markup=False, log_time_format="[%H:%M:%S]")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s %(message)s", "%H:%M:%S"))
    return handler


class Meter:
    """A progress display: `advance()` it; the text after the bar may change (`note`)."""

    def __init__(self, description: str, total: int, progress: Progress | None) -> None:
        self.description, self.total, self.done = description, total, 0
        self._progress = progress
        self._task: TaskID | None = progress.add_task(description, total=total, note="") if progress else None
        self._start = self._last = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self.done, note=note)
        elif time.monotonic() - self._last >= PLAIN_LINE_SECONDS or self.done == self.total:
            self._last = time.monotonic()
            spent = self._last - self._start
            left = spent / max(1, self.done) * (self.total - self.done)
            log.info("%s %d/%d, %.0f s, %.0f s left %s", self.description, self.done, self.total, spent, left, note)


@contextmanager
def meter(description: str, total: int) -> Iterator[Meter]:
    """A bar with ETA on a terminal; a plain line every ten seconds elsewhere (log files, CI)."""
    if not sys.stderr.isatty():
        yield Meter(description, total, None)
        return
    columns = (
        TextColumn("{task.description:>22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        yield Meter(description, total, progress)


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Iterate with a progress bar."""
    with meter(description, total) as bar:
        for item in items:
            yield item
            bar.advance()


class Metrics:
    """Appends one JSON object per call to `metrics.jsonl`: the figures behind every plot and table."""

    def __init__(self, folder: Path, name: str = "metrics.jsonl") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / name
        if self.path.exists() and (text := self.path.read_bytes()) and not text.endswith(b"\n"):
            with self.path.open("ab") as file:  # end a torn line, or the next row would be torn with it
                file.write(b"\n")

    def write(self, **values: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, default=float) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All rows so far; a line torn by a killed process is left out."""
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                log.warning("%s: a torn line is left out", self.path)
        return rows

    def forget_after(self, step: int) -> None:
        """Keep the whole rows up to a `step`: a run that goes on from there makes the later ones again."""
        if not self.path.exists():
            return
        kept = [row for row in self.read() if row.get("step", 0) <= step]
        work = self.path.with_name(f".{self.path.name}.tmp")
        work.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        work.replace(self.path)
