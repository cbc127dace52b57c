"""Tasks shared by the ranks of a SLURM array (or any set of processes that see one folder); no network, files only.

Rank 0 runs the flow and writes each phase's tasks as a list into the folder; every rank takes its share of each list
(task i is for the i-th rank, round and round) and writes a report; rank 0 waits for the reports. Each rank's heart
beats in a file; when one has stopped, what is missing is shared out again among the ranks that live.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, model_validator

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.recipe import Section
from bunny.core.types import Task
from bunny.curate.engines._board import Board, Patience
from bunny.curate.engines._tasks import Failure, ended_by_signal, pending
from bunny.curate.engines.local import LocalEngine

BEATS = 24  # heart beats in `silent_seconds`


def _number(*names: str) -> Any:
    """Default from the first of these environment variables that is set."""

    def read() -> int | None:
        found = next((os.environ[name] for name in names if os.environ.get(name, "").isdecimal()), None)
        return None if found is None else int(found)

    return Field(default_factory=read, ge=0)


class RankEngine(Section):
    """One of `world` processes that see the same files under the same paths."""

    folder: Path  # shared; the lists, reports and hearts stand there
    rank: int | None = _number("SLURM_ARRAY_TASK_ID", "SLURM_PROCID")
    world: int | None = _number("SLURM_ARRAY_TASK_COUNT", "SLURM_NTASKS")
    workers: int = Field(1, ge=0, description="processes of this rank; 0 = one a core")
    threads: int = Field(0, ge=0, description="threads of each worker process; 0 = the cores divided among them")
    silent_seconds: float = Field(120.0, gt=0, description="a rank that gives no sign of life for so long is given up")
    stuck_seconds: float = Field(7200.0, gt=0, description="so long without any new output, and rank 0 works alone")

    _board: Board | None = PrivateAttr(default=None)
    _own: LocalEngine | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fits(self) -> RankEngine:
        if self.rank is None or self.world is None:
            raise ValueError("rank and world are not known: give both, or run it inside a SLURM array")
        if not self.rank < self.world:
            raise ValueError(
                f"rank {self.rank} of {self.world}: ranks go from 0 on (SLURM: --array=0-{self.world - 1})"
            )
        return self

    @contextmanager
    def session(self) -> Iterator[None]:
        """Rank 0: opens the session that the other ranks wait for, and ends it for them, well or badly."""
        board = Board(self.folder)
        try:
            with ended_by_signal(), board.opened(), board.beating(0, self.silent_seconds / BEATS):
                self._board = board
                yield
        except BaseException as error:
            board.close("failed", str(error) or type(error).__name__)
            raise
        finally:
            self._board = None
        board.close("finished")

    def close(self) -> None:
        """End this rank's worker processes; later tasks start others."""
        if self._own:
            self._own.close()

    def run(self, name: str, tasks: Sequence[Task]) -> None:
        """Rank 0: share the tasks out until all outputs exist. Raises one UserError for those that failed."""
        board = self._board
        if board is None:
            raise RuntimeError("tasks are handed out by rank 0 inside its session: see `leading`")
        ranks: list[int] = list(range(self.world or 1))
        while left := pending(name, tasks):
            number = board.publish(name, ranks, left)
            board.report(number, 0, self._try(name, _share(left, ranks, 0)))
            silent = _Watch(board, number, ranks, left, self.silent_seconds, self.stuck_seconds).wait()
            for rank, failure in sorted(board.reports(number).items()):
                if failure.message:
                    raise UserError(f"rank {rank}: {failure.message}", fix=failure.fix)
            if silent:
                log.warning("%s: no sign of life from %s; their parts are shared out again", name, _named(silent))
            ranks = [rank for rank in ranks if rank not in silent] if silent else [0]

    def work(self) -> None:
        """Other ranks: take a share of every list until rank 0 has finished. Raises UserError if it failed, or is
        gone for ten times `silent_seconds`."""
        assert self.rank, "rank 0 runs the flow"
        board = Board(self.folder)
        before = board.read()
        log.info("rank %d of %d waits for lists in %s", self.rank, self.world, self.folder)
        waiting = Patience(10 * self.silent_seconds)
        with ended_by_signal():
            while True:
                now = board.read()
                ended = now.get("state") in ("finished", "failed")
                if now and not ended:
                    self._follow(Board(self.folder, now["session"]))
                    before = {}
                    waiting = Patience(10 * self.silent_seconds)
                elif ended and (now != before or waiting.over(self.silent_seconds)):
                    return _goodbye(now)
                elif waiting.over():
                    raise UserError(
                        f"{self.folder}: nothing from rank 0", fix="start rank 0 (again) on the same folder"
                    )
                time.sleep(self._pause)

    @property
    def _pause(self) -> float:
        return min(1.0, self.silent_seconds / BEATS / 2)

    def _follow(self, board: Board) -> None:
        """Take part in one session until it ends, another begins, or rank 0's heart has stopped."""
        assert self.rank is not None
        number, heart = 0, Patience(10 * self.silent_seconds)
        first, lives = board.pulse(0), False
        with board.beating(self.rank, self.silent_seconds / BEATS):
            while board.runs():
                lives = lives or board.pulse(0) not in ("", first)  # a session whose rank 0 was killed has old lists
                if lives and (listed := board.listed(number)):
                    name, ranks, tasks = listed
                    board.report(number, self.rank, self._try(name, _share(tasks, ranks, self.rank)))
                    number += 1
                    continue
                if heart.unchanged(board.pulse(0)):
                    raise UserError(
                        f"rank 0 gives no sign of life in {self.folder}", fix="start rank 0 again, then this one"
                    )
                time.sleep(self._pause)

    def _try(self, name: str, tasks: Sequence[Task]) -> Failure:
        """Make a share; a failure without words if all went well."""
        self._own = self._own or LocalEngine(workers=self.workers, threads=self.threads)
        try:
            self._own.run(name, tasks)
        except UserError as error:
            return Failure(error.what, error.fix)
        return Failure("")


USE = RankEngine


def _share(tasks: Sequence[Task], ranks: Sequence[int], rank: int) -> list[Task]:
    """Every len(ranks)-th task, from the rank's place among the ranks on."""
    return list(tasks[ranks.index(rank) :: len(ranks)]) if rank in ranks else []


def _named(ranks: Collection[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(str(rank) for rank in sorted(ranks))}"


def _goodbye(session: dict[str, Any]) -> None:
    if session["state"] == "failed":
        raise UserError(f"rank 0 has failed: {session.get('error')}", fix="mend that and start all ranks again")
    log.info("rank 0 has finished")


class _Watch:
    """Rank 0's wait for the other ranks' shares of one list."""

    def __init__(
        self, board: Board, number: int, ranks: Sequence[int], tasks: Sequence[Task], silent: float, stuck: float
    ) -> None:
        self.board, self.number, self.ranks, self.tasks = board, number, ranks, tasks
        self.hearts = {rank: Patience(silent) for rank in ranks}
        self.silent, self.progress = silent, Patience(stuck)
        self.pause = min(0.5, silent / BEATS / 2)

    def wait(self) -> set[int]:
        """Returns when all outputs exist, or every rank has reported or is given up; the ranks given up."""
        silent: set[int] = set()
        left, late = list(self.tasks), Patience(self.silent)  # files of other machines may be seen late
        while left := [task for task in left if not task.output.exists()]:
            reports = self.board.reports(self.number)
            waited_for = set(self.ranks) - set(reports) - silent
            silent |= {rank for rank in waited_for if self.hearts[rank].unchanged(self.board.pulse(rank))}
            failed = any(failure.message for failure in reports.values())
            if not waited_for - silent and (silent or failed or late.over()):
                break
            if waited_for:
                late = Patience(self.silent)
            if self.progress.unchanged(len(left)):
                return set(self.ranks) - {0}
            time.sleep(self.pause)
        return silent
