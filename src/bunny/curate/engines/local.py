"""Tasks on this machine: one after another in this process, or side by side in worker processes.

Workers are plain child processes that are handed one task at a time, so it is known which task was at work when the
system killed one (a pool of `concurrent.futures` breaks as a whole), each has its own environment (threads, GPU), and
they run from notebooks and scripts without a `__main__` guard.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.log import Meter, log, meter
from bunny.core.recipe import Section
from bunny.core.types import Task
from bunny.curate.engines._tasks import Failure, as_json, attempt, ended_by_signal, limits, pending, told

GOODBYE_SECONDS = 5.0  # a worker that is asked to end gets so long to clear its temporaries


class LocalEngine(Section):
    """One machine."""

    workers: int = Field(1, ge=0, description="processes; 1 = this process itself, 0 = one a core")
    threads: int = Field(0, ge=0, description="threads of each worker process; 0 = the cores divided among them")

    def run(self, name: str, tasks: Sequence[Task]) -> None:
        """Returns when every output exists; raises one UserError for those that failed, after all have been tried."""
        left = pending(name, tasks)
        workers = min(self.workers or cores(), len(left))
        if not left:
            return
        with ended_by_signal(), meter(name, len(left)) as bar:
            if self.workers == 1 and not self.threads:
                failures = _here(left, bar)
            else:
                failures = _Crew(workers, self.threads or max(1, cores() // workers), bar).run(left)
        told(name, failures, len(tasks))


USE = LocalEngine


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them; no driver is started for it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def _here(tasks: Sequence[Task], bar: Meter) -> list[tuple[Task, Failure]]:
    failures = []
    for task in tasks:
        if failure := attempt(task.function, as_json(task), str(task.output)):
            failures.append((task, failure))
        bar.advance()
    return failures


class _Crew:
    """Worker processes, each with a thread here that hands it tasks."""

    def __init__(self, workers: int, threads: int, bar: Meter) -> None:
        self.workers, self.threads, self.bar = workers, threads, bar
        self.devices = devices()
        self.waiting: queue.SimpleQueue[tuple[int, Task]] = queue.SimpleQueue()
        self.events: queue.SimpleQueue[tuple[int, Task, Failure | int | None] | BaseException | None]
        self.events = queue.SimpleQueue()
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.ending, self.lock = False, threading.Lock()

    def run(self, tasks: Sequence[Task]) -> list[tuple[Task, Failure]]:
        """The tasks that failed, in order. One whose worker was killed is tried once more, with no other at work."""
        lines = [as_json(task) for task in tasks]
        try:
            failed = self._round(dict(enumerate(tasks)), lines, self.workers)
            killed = [number for number, failure in failed.items() if isinstance(failure, int)]
            for number in killed:
                log.warning(
                    "a worker was killed (%s); tried again alone: %s", _signal(failed[number]), tasks[number].output
                )
                failed.update(self._round({number: tasks[number]}, lines, 1) or {number: None})
        finally:
            self._end()
        return [(tasks[number], _as_failure(failed[number])) for number in sorted(failed) if failed[number] is not None]

    def _round(self, tasks: Mapping[int, Task], lines: Sequence[str], workers: int) -> dict[int, Failure | int | None]:
        """Number -> failure, or the exit status of the worker that died of it."""
        for item in tasks.items():
            self.waiting.put(item)
        count = min(workers, len(tasks))
        for slot in range(count):
            threading.Thread(target=self._hand_out, args=(slot, lines), daemon=True).start()
        failed: dict[int, Failure | int | None] = {}
        while count:
            event = self.events.get()
            if event is None:
                count -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                number, _, failure = event
                if failure is not None:
                    failed[number] = failure
                self.bar.advance(0 if isinstance(failure, int) else 1)
        return failed

    def _hand_out(self, slot: int, lines: Sequence[str]) -> None:
        try:
            while not self.ending:
                try:
                    number, task = self.waiting.get_nowait()
                except queue.Empty:
                    break
                self.events.put((number, task, self._ask(slot, task, lines[number])))
            self.events.put(None)
        except Exception as error:  # noqa: BLE001  # raised in the main thread
            self.events.put(error)

    def _ask(self, slot: int, task: Task, arguments: str) -> Failure | int | None:
        """The worker's answer; its exit status if it died of the task."""
        process = self.processes.get(slot) or self._start(slot)
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
        del self.processes[slot]
        status = process.wait()
        _close(process)
        return status

    def _start(self, slot: int) -> subprocess.Popen[str]:
        environment = {**os.environ, **limits(self.threads), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        command = [sys.executable, "-m", "bunny.curate.engines._worker"]
        pipe = subprocess.PIPE
        with self.lock:
            if self.ending:
                raise RuntimeError("the engine is ending")
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True, encoding="utf-8")
            self.processes[slot] = process
        assert process.stdout
        if not process.stdout.readline() and not self.ending:  # the first line says that it is ready
            raise UserError(f"a worker process did not start ({_signal(process.wait())})", fix="its words stand above")
        return process

    def _end(self) -> None:
        with self.lock:
            self.ending = True
            processes = list(self.processes.values())
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


def _signal(status: Any) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _as_failure(failure: Failure | int | None) -> Failure:
    if isinstance(failure, Failure):
        return failure
    if failure and failure > 0:
        return Failure(f"its worker process ended, twice, with {_signal(failure)}; its words stand above")
    return Failure(
        f"its worker process was killed, twice ({_signal(failure)}); the system does that when memory runs out",
        "give it more memory, fewer workers or smaller parts; finished parts are kept",
    )
