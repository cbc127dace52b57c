"""Tasks on a Ray cluster, whose machines see the same files. Ray carries names and paths, never data.

A task whose worker or machine is lost is run again elsewhere. `pip install 'bunny-vlm[ray]'`.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.log import log, meter
from bunny.core.recipe import Section
from bunny.core.types import Task
from bunny.curate.engines._tasks import Failure, as_json, attempt, ended_by_signal, pending, told

KNOCK_SECONDS = 10.0


class RayEngine(Section):
    """A cluster."""

    address: str | None = None  # `auto`, host:port or ray://host:port; default: a small cluster on this machine
    workers: int = Field(0, ge=0, description="tasks at work at one time; 0 = as many as the cluster has room for")
    cores: float = Field(1.0, ge=0, description="cores that a task takes")
    gpus: float = Field(0.0, ge=0, description="GPUs that a task takes, parts of one allowed")
    retries: int = Field(3, ge=0, description="times that a task is run again after its worker was lost")

    def run(self, name: str, tasks: Sequence[Task]) -> None:
        """Returns when every output exists; raises one UserError for those that failed, after all have been tried."""
        left = pending(name, tasks)
        if not left:
            return
        lines = [as_json(task) for task in left]
        ray = _ray()
        _connect(ray, self.address)
        with ended_by_signal():
            told(name, self._run(ray, name, left, lines), len(tasks))

    def _run(self, ray: Any, name: str, tasks: Sequence[Task], lines: Sequence[str]) -> list[tuple[Task, Failure]]:
        remote = ray.remote(num_cpus=self.cores, num_gpus=self.gpus, max_retries=self.retries)(_attempt)
        room = self.workers or _room(ray, self.cores, self.gpus)
        failed: dict[int, Failure] = {}
        flying: dict[Any, int] = {}
        following = iter(range(len(tasks)))
        with meter(name, len(tasks)) as bar:
            try:
                while True:
                    while len(flying) < room and (number := next(following, None)) is not None:
                        task = tasks[number]
                        flying[remote.remote(task.function, lines[number], str(task.output))] = number
                    if not flying:
                        return [(tasks[number], failed[number]) for number in sorted(failed)]
                    for reference in ray.wait(list(flying), num_returns=1)[0]:
                        if failure := self._answer(ray, reference):
                            failed[flying[reference]] = failure
                        del flying[reference]
                        bar.advance()
            finally:
                for reference in flying:
                    ray.cancel(reference, force=True)

    def _answer(self, ray: Any, reference: Any) -> Failure | None:
        try:
            found = ray.get(reference)
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [""]
            return Failure(
                f"its worker was lost {self.retries + 1} times ({type(error).__name__}: {lines[0]})",
                "the system kills workers when memory runs out: give tasks more cores or smaller parts",
            )
        return Failure(*found) if found else None


USE = RayEngine


def _attempt(function: str, arguments: str, output: str) -> tuple[str, str, str] | None:
    failure = attempt(function, arguments, output)
    return (failure.message, failure.fix, failure.trace) if failure else None


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("the engine `ray` needs Ray", fix="pip install 'bunny-vlm[ray]'") from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Join the cluster, once a process."""
    if ray.is_initialized():
        return
    if address and ":" in address:
        _knock(address)
    here = {"include_dashboard": False} if address is None else {}
    paths = {} if address else {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}
    try:
        ray.init(address=address or "local", logging_level="WARNING", runtime_env=paths or None, **here)
    except Exception as error:  # Ray has a kind of error for every way of not getting through
        raise _out_of_reach(address or "here", error) from error
    log.info("Ray: %g cores, %g GPUs", *(ray.cluster_resources().get(kind, 0) for kind in ("CPU", "GPU")))


def _knock(address: str) -> None:
    """Raise UserError if nobody listens there: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _out_of_reach(address, error) from None


def _out_of_reach(address: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"Ray cluster {address}: cannot be reached ({type(error).__name__}: {reason})",
        fix="see `ray status` on its head; start one with `ray start --head`",
    )


def _room(ray: Any, cores: float, gpus: float) -> int:
    """Tasks that the cluster has room for, and as many again in the queue, so that nobody waits."""
    has = ray.cluster_resources()
    room = [has.get(kind, 0.0) / wanted for kind, wanted in (("CPU", cores), ("GPU", gpus)) if wanted]
    if any(one < 1 for one in room):
        raise UserError(
            f"no machine of the cluster has {cores:g} cores and {gpus:g} GPUs for a task", fix="lower `cores` or `gpus`"
        )
    return max(2, 2 * int(min(room, default=1)))
