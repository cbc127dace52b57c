"""Processes of the engines' tests: forked, watched, killed."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Started:
    """A process of its own, forked, so that it imports nothing: `err`, what it says on standard error."""

    def __init__(self, function: Callable[..., None], *arguments: Any, err: Path) -> None:
        self.err = err
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=(function, arguments))
        self.process.start()
        self.pid = self.process.pid or 0

    def _run(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        os.dup2(os.open(self.err, os.O_WRONLY | os.O_CREAT), 2)
        status = 1
        try:
            function(*arguments)
            status = 0
        except BaseException as error:  # noqa: BLE001  # told on its standard error
            os.write(2, "".join(traceback.format_exception(error)).encode())
            if isinstance(error, SystemExit):
                status = error.code if isinstance(error.code, int) else 1
        os._exit(status)

    def said(self, seconds: float = 60) -> str:
        """What it said, once it has ended."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "it does not end"
        return self.err.read_text()

    @property
    def status(self) -> int | None:
        return self.process.exitcode


STARTED: list[Started] = []


def start(function: Callable[..., None], *arguments: Any, err: Path) -> Started:
    STARTED.append(Started(function, *arguments, err=err))
    return STARTED[-1]


def kill_started() -> None:
    while STARTED:
        process = STARTED.pop().process
        process.kill()
        process.join()


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def wait_for(*paths: Path) -> None:
    wait_until(lambda: all(path.exists() and path.stat().st_size for path in paths))


def all_gone(signs: list[Path]) -> None:
    """Waits for the end of the processes that the files name."""
    wait_until(lambda: all(gone(int(sign.read_text())) for sign in signs))


def gone(pid: int) -> bool:
    """Whether a process has ended, as its parent sees it: a dead one whose other threads are still ending has not."""
    here = Path(f"/proc/{pid}")
    try:
        dead = (here / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return dead and len(list((here / "task").iterdir())) == 1
    except OSError:
        return True
