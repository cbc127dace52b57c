"""What runs the heavy tasks of a curation: in this process, in several, on a Ray cluster, in a SLURM array.

In: `Task`s (a function's name, JSON-able arguments, an output path). Out: the outputs, whole. A task is done if its
output exists, so a killed run goes on where it was, and the engine never shows in the outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bunny.core.protocols import Engine
from bunny.core.publishing import publish
from bunny.core.recipe import make
from bunny.curate.engines.local import LocalEngine
from bunny.curate.engines.ranks import RankEngine

__all__ = ["LocalEngine", "RankEngine", "leading", "make_engine", "publish", "release"]


def make_engine(block: Mapping[str, Any] | None = None) -> Engine:
    """The engine of a `{use: local | ray | ranks, …}` block; without one, tasks run in this process.

    Raises UserError for an unknown name or setting, a missing library or a cluster that cannot be reached.
    """
    engine: Engine = make(dict(block or {"use": "local"}), "bunny.curate.engines", "engine")
    return engine


@contextmanager
def leading(engine: Engine) -> Iterator[bool]:
    """Whether this process runs the flow. True for all but the ranks above 0 of a `ranks` engine: those work here, on
    what rank 0 hands out, until it has finished, and then there is nothing left to do.

    with leading(engine) as leads:
        if leads:
            …the flow, with this engine…
    """
    try:
        if not isinstance(engine, RankEngine):
            yield True
        elif engine.rank == 0:
            with engine.session():
                yield True
        else:
            engine.work()
            yield False
    finally:
        release(engine)


def release(engine: Engine) -> None:
    """End the worker processes that an engine keeps for its next call; it may still be called."""
    if isinstance(engine, LocalEngine | RankEngine):
        engine.close()
