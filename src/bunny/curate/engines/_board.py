"""The folder that the ranks share: what rank 0 writes there, what the others write, how each is read.

    session.json               {"session": …, "state": "running" | "finished" | "failed", "error": …}
    SESSION/0000.json          {"name": …, "ranks": [0, 1, …], "tasks": [[function, arguments, output], …]}
    SESSION/0000.rank-1.json   {"error": …, "fix": …}, once the rank has tried its share
    SESSION/heart-1            changes while the rank lives

Every file is written whole, by a rename. A rank that reads one not yet there tries again later.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.store import write_atomic
from bunny.core.types import Task
from bunny.curate.engines._tasks import Failure, as_json, find

SESSION = "session.json"
INSIDE = "bunny"  # the package whose functions a list may name


class Board:
    """The shared folder: what is written there, and by whom."""

    def __init__(self, folder: Path, session: str = "") -> None:
        self.folder = folder
        self._session = session

    @property
    def place(self) -> Path:
        """The session's folder."""
        assert self._session
        return self.folder / self._session

    def read(self) -> dict[str, Any]:
        """The current session; empty if there is none."""
        found = read_json(self.folder / SESSION)
        return found if isinstance(found, dict) else {}

    def runs(self) -> bool:
        now = self.read()
        return now.get("state") == "running" and now.get("session") == self._session

    @contextmanager
    def opened(self) -> Iterator[None]:
        """A new session; the files of older ones go."""
        self._session = uuid.uuid4().hex[:12]
        try:
            self.place.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}", fix="choose another folder") from None
        write_atomic(self.folder / SESSION, json.dumps({"session": self._session, "state": "running"}))
        for old in self.folder.iterdir():
            if old.is_dir() and len(old.name) == 12 and old.name != self._session:
                shutil.rmtree(old, ignore_errors=True)
        yield

    def close(self, state: str, error: str = "") -> None:
        if self._session:
            content = {"session": self._session, "state": state, "error": error}
            write_atomic(self.folder / SESSION, json.dumps(content))

    def publish(self, name: str, ranks: Sequence[int], tasks: Sequence[Task]) -> int:
        """Write the next list; its number."""
        number = len([path for path in self.place.glob("*.json") if path.stem.isdecimal()])
        rows = [[task.function, json.loads(as_json(task)), str(task.output.absolute())] for task in tasks]
        content = {"name": name, "ranks": list(ranks), "tasks": rows}
        write_atomic(self.place / f"{number:04d}.json", json.dumps(content))
        return number

    def listed(self, number: int) -> tuple[str, list[int], list[Task]] | None:
        """(name, ranks, tasks) of a list, once it is there. Raises UserError if it names a function from outside."""
        found = read_json(self.place / f"{number:04d}.json")
        if found is None:
            return None
        tasks = [Task(function, arguments, Path(output)) for function, arguments, output in found["tasks"]]
        for task in tasks:
            find(task.function, INSIDE)
        return found["name"], found["ranks"], tasks

    def report(self, number: int, rank: int, failure: Failure) -> None:
        """Say that the rank has tried its share of a list."""
        with contextlib.suppress(FileNotFoundError):  # the session is over
            content = json.dumps({"error": failure.message, "fix": failure.fix})
            write_atomic(self.place / f"{number:04d}.rank-{rank}.json", content)

    def reports(self, number: int) -> dict[int, Failure]:
        """Rank -> what it said of a list, of those that are through with it."""
        found = {}
        for path in self.place.glob(f"{number:04d}.rank-*.json"):
            content = read_json(path)
            if content is not None:
                found[int(path.stem.rpartition("-")[2])] = Failure(content["error"], content["fix"])
        return found

    def pulse(self, rank: int) -> str:
        """Something that changes while the rank lives."""
        try:
            return (self.place / f"heart-{rank}").read_text()
        except OSError:
            return ""

    @contextmanager
    def beating(self, rank: int, seconds: float) -> Iterator[None]:
        """The rank's heart beats, every so many seconds, from a thread."""
        path, stop = self.place / f"heart-{rank}", threading.Event()

        def beat() -> None:
            while True:
                try:
                    write_atomic(path, uuid.uuid4().hex)
                except OSError as error:
                    log.debug("%s: %s", path, error)  # the session may be over; a lasting trouble is seen by others
                if stop.wait(seconds):
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


class Patience:
    """Counts, by this machine's clock, how long nothing has changed."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.since, self.last = seconds, time.monotonic(), object()

    def over(self, seconds: float | None = None) -> bool:
        return time.monotonic() - self.since > (self.seconds if seconds is None else seconds)

    def unchanged(self, sign: object) -> bool:
        """Whether the sign has been the same for too long."""
        if sign != self.last:
            self.last, self.since = sign, time.monotonic()
        return self.over()


def read_json(path: Path) -> Any:
    """What a file holds; None if it is not there or not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
