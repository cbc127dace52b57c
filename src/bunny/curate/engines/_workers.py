"""Worker processes that stay between the phases of a curation: a task in, a worker's answer or its death out.

A worker imports for more than a second, a curation has a dozen phases. It is known by its slot (which names its GPU)
and its number of threads, is started when it is first asked, and lives until `end`, or until this process is no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.types import Task
from bunny.curate.engines._tasks import Failure, limits

GOODBYE_SECONDS = 5.0  # a worker that is asked to end gets so long to clear its temporaries
KINDS = 2  # numbers of threads whose workers stay: those of phases of one task, and those of phases of many


class Workers:
    """Processes of this one; safe to ask from several threads, each slot by one at a time."""

    def __init__(self) -> None:
        self.devices, self.ended = devices(), False
        self._lock, self._parent = threading.Lock(), os.getpid()
        self._processes: dict[tuple[int, int], subprocess.Popen[str]] = {}
        self._kinds: list[int] = []

    def expect(self, threads: int) -> None:
        """A phase with so many threads a worker begins: idle workers of other kinds but the last end."""
        self._kinds = [threads, *(kind for kind in self._kinds if kind != threads)][:KINDS]
        with self._lock:
            gone = [key for key in self._processes if key[1] not in self._kinds]
            _end([self._processes.pop(key) for key in gone])

    def ask(self, slot: int, threads: int, task: Task, arguments: str) -> Failure | int | None:
        """The worker's answer; its exit status if it died of the task. Raises UserError if it cannot start."""
        process = self._processes.get((slot, threads))
        if process is None or process.poll() is not None:  # one that died idle did not die of this task
            process = self._start(slot, threads)
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps([task.function, arguments, str(task.output)]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        if answer.endswith("\n"):
            content = json.loads(answer)
            return Failure(**content) if content else None
        status = process.wait()
        _close(process)
        return status

    def rest(self) -> None:
        """End all workers; those asked later are started anew."""
        with self._lock:
            processes = list(self._processes.values())
            self._processes.clear()
        if os.getpid() == self._parent:  # a fork of this process has no workers
            _end(processes)

    def end(self) -> None:
        """End all workers for good."""
        with self._lock:
            self.ended = True
        self.rest()

    def _start(self, slot: int, threads: int) -> subprocess.Popen[str]:
        environment = {**os.environ, **limits(threads), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        command = [sys.executable, "-m", "bunny.curate.engines._worker"]
        pipe = subprocess.PIPE
        with self._lock:
            if self.ended:
                raise RuntimeError("the engine is ending")
            if dead := self._processes.pop((slot, threads), None):
                _close(dead)
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True, encoding="utf-8")
            self._processes[slot, threads] = process
        assert process.stdout
        if not process.stdout.readline() and not self.ended:  # the first line says that it is ready
            raise UserError(f"a worker process did not start ({ending(process.wait())})", fix="its words stand above")
        return process


def devices() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them; no driver is started for it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def ending(status: Any) -> str:
    """An exit status in words."""
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close(process)


def _close(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # words that a dead worker never read
            if stream:
                stream.close()
