"""One output file or folder, whole or not at all: what every task of the curation writes through.

In: where the output shall stand. Out: a temporary name beside it, which a rename puts in its place at the end. A
process that is killed leaves a hidden temporary behind; the next one that makes the same output takes it away.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bunny.core.errors import UserError
from bunny.core.store import trouble

FOREIGN_HOURS = 24.0  # a temporary of another machine, whose processes cannot be asked, is stale after so long
_MARK = re.compile(r"\.~(?P<host>[^~]+)~(?P<pid>\d+)~(?P<start>\d+)~[0-9a-f]+")


@contextmanager
def publish(output: Path) -> Iterator[Path]:
    """A temporary path to fill with a file or a folder (make the folder yourself); put in place when the block ends.

    It has the suffix of `output`, so that libraries which add one (`numpy.save`) leave it alone. Everything is flushed
    to disk before the rename. If the block raises, the temporary goes and `output` is not touched. Of two processes
    that make the same output, both succeed. Raises UserError where nothing can be written.

    >>> import tempfile
    >>> output = Path(tempfile.mkdtemp()) / "part.txt"
    >>> with publish(output) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> output.read_text(), len(list(output.parent.iterdir()))
    ('whole', 1)
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        sweep(output)
        temporary = output.with_name(f".{output.stem}{_own_mark()}{output.suffix}")
        try:
            yield temporary
            _flush(temporary)
            _put(temporary, output)
        finally:
            _remove(temporary)
        _flush_one(output.parent)
    except OSError as error:
        if told := trouble(error, output.parent):
            raise UserError(told, fix="make room there or choose another folder; finished work is kept") from error
        raise


def sweep(output: Path) -> None:
    """Remove the temporaries of `output` that processes left which are no more."""
    prefix = f".{output.stem}.~"
    for entry in output.parent.iterdir() if output.parent.is_dir() else ():
        if entry.name.startswith(prefix) and entry.name.endswith(output.suffix):
            mark = _MARK.match(entry.name, len(prefix) - 2)
            if mark and _stale(entry, mark["host"], int(mark["pid"]), mark["start"]):
                _remove(entry)


def _own_mark() -> str:
    """`.~host~process~start~random`: names the process, so that others can tell whether it is still there."""
    return f".~{_host()}~{os.getpid()}~{_started(os.getpid())}~{uuid.uuid4().hex[:8]}"


def _host() -> str:
    """This machine and, on Linux, its space of process numbers (containers of one name each have their own)."""
    name = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())
    try:
        return f"{name}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return name


def _started(pid: int) -> str:
    """When a process began, in the machine's ticks: a number used again does not pass for the old process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def _stale(entry: Path, host: str, pid: int, start: str) -> bool:
    if host != _host():
        try:
            return time.time() - entry.stat().st_mtime > FOREIGN_HOURS * 3600
        except FileNotFoundError:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _started(pid) != start


def _put(temporary: Path, output: Path) -> None:
    """Rename; a folder that another process has put there in the meantime is as good as ours."""
    try:
        temporary.replace(output)
    except OSError:
        if not (temporary.is_dir() and output.is_dir()):
            raise


def _flush(path: Path) -> None:
    for inside in sorted(path.rglob("*")) if path.is_dir() else ():
        _flush_one(inside)
    _flush_one(path)


def _flush_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
