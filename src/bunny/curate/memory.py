"""How much memory a stage takes: a block of code in, the most anonymous memory of this process meanwhile out.

Pages of mapped files do not count: the system takes them back. Worker processes have their own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")
SECONDS = 0.05  # between two looks, 30 µs each


@dataclass(slots=True)
class Peak:
    """Bytes; 0 where the system does not say (it is Linux that does)."""

    bytes: int = 0

    def look(self) -> None:
        self.bytes = max(self.bytes, anonymous())


@contextmanager
def peak() -> Iterator[Peak]:
    """The most that this process holds until the block ends; what comes and goes within SECONDS may be missed."""
    found, stop = Peak(), threading.Event()
    found.look()

    def watch() -> None:
        while not stop.wait(SECONDS):
            found.look()

    thread = threading.Thread(target=watch, daemon=True)
    if found.bytes:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        if found.bytes:
            thread.join()
        found.look()


def anonymous() -> int:
    """Bytes of anonymous memory that this process holds now; 0 if unknown."""
    try:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon:"))
    except (OSError, StopIteration):
        return 0
    return int(line.split()[1]) * 1024
