"""Turns exceptions into exit codes and one-line messages on standard error.

0 done; 1 the program failed (a bug, or the machine: `--debug` shows where); 2 something outside must change (a recipe,
a path, an option); 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable
from typing import TypeVar

import typer

from bunny.core.errors import UserError
from bunny.core.store import NO_WRITE

DEBUG = "BUNNY_DEBUG"
FAILED, USER_ERROR, STOPPED = 1, 2, 130

Command = TypeVar("Command", bound=Callable[..., None])


def guarded(command: Command) -> Command:
    """The same command, whose errors end in the exit codes above. With BUNNY_DEBUG set they keep their traceback."""

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            _leave(str(error), USER_ERROR, error)
        except KeyboardInterrupt as error:
            _leave("stopped; run the same command again to go on", STOPPED, error)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our output has gone: typer ends quietly
            if isinstance(error, OSError) and error.errno in NO_WRITE:
                where = f"{error.filename}: " if error.filename else ""
                _leave(f"{where}{os.strerror(error.errno)}; make room or choose another folder", USER_ERROR, error)
            kind = type(error).__name__
            _leave(f"failed: {kind}: {_one_line(error)} (see where with `bunny --debug …`)", FAILED, error)

    return run  # type: ignore[return-value]  # same signature, kept by functools.wraps


def _leave(message: str, code: int, error: BaseException) -> None:
    if os.environ.get(DEBUG):
        raise error
    typer.echo(f"bunny: {message}", err=True)
    raise typer.Exit(code)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:299] + "…"
