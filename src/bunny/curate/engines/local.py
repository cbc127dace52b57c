"""Tasks on this machine: one after another in this process, or side by side in worker processes.

Workers are plain child processes that are handed one task at a time, so it is known which task was at work when the
system killed one (a pool of `concurrent.futures` breaks as a whole), each has its own environment (threads, GPU), and
they run from notebooks and scripts without a `__main__` guard. They stay from one phase to the next.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Mapping, Sequence

from pydantic import Field, PrivateAttr

from bunny.core.log import Meter, log, meter
from bunny.core.recipe import Section
from bunny.core.types import Task
from bunny.curate.engines._tasks import Failure, as_json, attempt, ended_by_signal, pending, told
from bunny.curate.engines._workers import Workers, ending


class LocalEngine(Section):
    """One machine."""

    workers: int = Field(1, ge=0, description="processes; 1 = this process itself, 0 = one a core")
    threads: int = Field(0, ge=0, description="threads of each worker process; 0 = the cores divided among them")

    _workers: Workers | None = PrivateAttr(default=None)

    def run(self, name: str, tasks: Sequence[Task]) -> None:
        """Returns when every output exists; raises one UserError for those that failed, after all have been tried.

        Worker processes stay for the next call, until `close`, an error or the end of this process.
        """
        left = pending(name, tasks)
        if not left:
            return
        count = min(self.workers or cores(), len(left))
        try:
            with ended_by_signal(), meter(name, len(left)) as bar:
                if self.workers == 1 and not self.threads:
                    failures = _here(left, bar)
                else:
                    failures = _Phase(self._crew(), count, self.threads or max(1, cores() // count), bar).run(left)
            told(name, failures, len(tasks))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the worker processes, with what they hold; a later `run` starts others."""
        if self._workers:
            self._workers.end()
        self._workers = None

    def _crew(self) -> Workers:
        if self._workers is None:
            self._workers = Workers()
            weakref.finalize(self, self._workers.end)  # also when this process ends
        return self._workers


USE = LocalEngine


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(tasks: Sequence[Task], bar: Meter) -> list[tuple[Task, Failure]]:
    failures = []
    for task in tasks:
        if failure := attempt(task.function, as_json(task), str(task.output)):
            failures.append((task, failure))
        bar.advance()
    return failures


class _Phase:
    """Tasks handed to workers, by a thread here for each of them."""

    def __init__(self, crew: Workers, workers: int, threads: int, bar: Meter) -> None:
        self.crew, self.workers, self.threads, self.bar = crew, workers, threads, bar
        self.waiting: queue.SimpleQueue[tuple[int, Task]] = queue.SimpleQueue()
        self.events: queue.SimpleQueue[tuple[int, Task, Failure | int | None] | BaseException | None]
        self.events = queue.SimpleQueue()

    def run(self, tasks: Sequence[Task]) -> list[tuple[Task, Failure]]:
        """The tasks that failed, in order. One whose worker was killed is tried once more, with no other there."""
        lines = [as_json(task) for task in tasks]
        self.crew.expect(self.threads)
        failed = self._round(dict(enumerate(tasks)), lines, self.workers)
        killed = [number for number, failure in failed.items() if isinstance(failure, int)]
        if killed:
            self.crew.rest()  # idle workers hold memory
        for number in killed:
            log.warning("a worker was killed (%s); tried again alone: %s", ending(failed[number]), tasks[number].output)
            failed.update(self._round({number: tasks[number]}, lines, 1) or {number: None})
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
            while not self.crew.ended:
                try:
                    number, task = self.waiting.get_nowait()
                except queue.Empty:
                    break
                self.events.put((number, task, self.crew.ask(slot, self.threads, task, lines[number])))
            self.events.put(None)
        except Exception as error:  # noqa: BLE001  # raised in the main thread
            self.events.put(error)


def _as_failure(failure: Failure | int | None) -> Failure:
    if isinstance(failure, Failure):
        return failure
    if failure and failure > 0:
        return Failure(f"its worker process ended, twice, with {ending(failure)}; its words stand above")
    return Failure(
        f"its worker process was killed, twice ({ending(failure)}); the system does that when memory runs out",
        "give it more memory, fewer workers or smaller parts; finished parts are kept",
    )
