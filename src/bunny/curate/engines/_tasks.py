"""One task, run and judged: what the engines have in common. Tasks in; `Failure`s out, or nothing."""

from __future__ import annotations

import importlib
import json
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import Task

SHOWN = 200  # characters of a task's arguments in an error


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task has no output. fix: how to mend it. trace: the traceback, empty for a UserError."""

    message: str
    fix: str = ""
    trace: str = ""


def pending(name: str, tasks: Sequence[Task]) -> list[Task]:
    """The tasks whose output is not there, each output once."""
    left = list({task.output: task for task in tasks if not task.output.exists()}.values())
    if len(left) < len(tasks):
        log.info("%s: %d of %d parts were done before", name, len(tasks) - len(left), len(tasks))
    return left


def attempt(function: str, arguments: str, output: str) -> Failure | None:
    """Run one task here, unless its output exists. arguments: JSON, in every engine, so that a function gets the
    same kinds of values from all of them."""
    path = Path(output)
    if path.exists():
        return None
    try:
        find(function)(**json.loads(arguments), output=path)
    except UserError as error:
        return Failure(error.what, error.fix)
    except Exception as error:  # noqa: BLE001  # the others go on; told at the end, with its traceback
        return Failure(f"{type(error).__name__}: {' '.join(str(error).split())}", trace=traceback.format_exc())
    return None if path.exists() else Failure(f"{function} ended without its output {path}")


def as_json(task: Task) -> str:
    """The task's arguments as JSON. Raises TypeError for what JSON has no word for."""
    return json.dumps(dict(task.arguments))


def told(name: str, failures: Sequence[tuple[Task, Failure]], total: int) -> None:
    """Raise one UserError about the tasks that failed, if any did."""
    if not failures:
        return
    task, first = failures[0]
    if first.trace:
        log.error("%s", first.trace.rstrip())
    arguments = json.dumps(dict(task.arguments), default=str)
    arguments = arguments if len(arguments) <= SHOWN else arguments[:SHOWN] + "…"
    count = f"{len(failures)} of {total} parts failed; the first: " if total > 1 else ""
    raise UserError(
        f"{name}: {count}{first.message} (in {task.function}, {arguments}, for {task.output})",
        fix=first.fix or "finished parts are kept: mend it and run the same command again",
    )


def find(function: str, inside: str = "") -> Callable[..., None]:
    """The function that `module:name` stands for. inside: the package that it must be defined in, empty for any."""
    module, _, name = function.partition(":")
    if inside and not (module == inside or module.startswith(f"{inside}.")):
        raise UserError(f"{function}: a task list may name functions of `{inside}` only")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{function}: cannot be found here ({error})", fix="install the same version everywhere"
        ) from None
    if inside and getattr(found, "__module__", None) != module:  # an import of that module, os.system for one
        raise UserError(f"{function}: not a function of that module")
    return found  # type: ignore[no-any-return]  # what the name stands for is checked by calling it


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """SIGTERM raises SystemExit(143) inside, as Ctrl-C raises KeyboardInterrupt, so that temporaries are cleared."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def limits(threads: int) -> Mapping[str, str]:
    """Environment that holds BLAS, numba and torch to so many threads."""
    names = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    )
    return {name: str(threads) for name in names}
