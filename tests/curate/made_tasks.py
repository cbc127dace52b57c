"""Tasks for the engines' tests: some work, some do not. Each writes one small file or folder."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.publishing import publish


def write(text: str, output: Path, seconds: float = 0.0) -> None:
    time.sleep(seconds)
    with publish(output) as temporary:
        temporary.write_text(text)


def write_folder(names: list[str], output: Path) -> None:
    with publish(output) as temporary:
        temporary.mkdir()
        for name in names:
            (temporary / name).write_text(name)


def process(output: Path, names: Any = ()) -> None:
    """Says which process it ran in and what its environment holds."""
    write(" ".join([str(os.getpid()), *(os.environ.get(name, "-") for name in names)]), output, 0.05)


def kinds(output: Path, **arguments: Any) -> None:
    write(repr(arguments), output)


def refuse(what: str, output: Path) -> None:
    raise UserError(what, fix="mend it so")


def break_down(output: Path) -> None:
    print("words that are no answer")
    raise ValueError("three\nlines\nlong")


def write_nothing(output: Path) -> None:
    pass


def die(output: Path, times: str, count: int) -> None:
    """Is killed so many times, as by the system, then works; `times` is a file that counts."""
    counter = Path(times)
    done = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(done + 1))
    if done < count:
        os.kill(os.getpid(), signal.SIGKILL)
    write(f"survived {done}", output)


def leave(output: Path) -> None:
    os._exit(7)


def linger(output: Path, started: str) -> None:
    """Leaves a sign when it has begun, and takes a minute."""
    with publish(output) as temporary:
        temporary.write_text("half")
        Path(started).write_text(str(os.getpid()))
        time.sleep(60)
