"""The curation explorer: a run folder in, a page on this machine out, until it is interrupted.

The decision table answers what it can; pictures, neighbours and the map need the run's pool folder to be there still.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import FloatArray, IntArray, Sample
from bunny.curate.columns import Rows
from bunny.curate.explore import Decisions, Explorer, Overrides
from bunny.curate.pool import PoolFolder
from bunny.pipeline.curated import CuratedRun, find_run

OVERRIDES = "overrides.jsonl"


def view(run: Path, host: str = "127.0.0.1", port: int = 0, browser: bool = True) -> None:
    """Serve the explorer of a run. port 0: a free one; browser: whether to open it there. Raises UserError."""
    try:
        from bunny.serve.curation import serve
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", fix="pip install 'bunny-vlm[serve]'") from None
    serve(explorer_of(run), host, port, browser)


def explorer_of(run: Path) -> Explorer:
    """What answers the page's questions. Overrides are kept in the run folder itself, where a new curation of the same
    recipe leaves them alone."""
    found = find_run(run)
    home = found.folder.parent if found.folder.name == "curated" else found.folder
    table = Decisions(found.table)
    return Explorer(table, Overrides(home / OVERRIDES), found.summary, _pool(found, table))


class _PoolRows:
    """The pool behind a table: vectors and samples by row."""

    def __init__(self, folder: PoolFolder) -> None:
        self.folder = folder
        self.visual = Rows.of(folder.pool()["visual"])

    def __len__(self) -> int:
        return len(self.folder)

    def vectors(self, rows: IntArray) -> FloatArray:
        return self.visual.read(np.asarray(rows, dtype=np.int64))

    def samples(self, rows: Sequence[int] | IntArray) -> list[Sample]:
        return self.folder.samples(rows)


def _pool(run: CuratedRun, table: Decisions) -> _PoolRows | None:
    """None, and a word about it, if the pool is gone or is another one than the table's."""
    if run.pool is None:
        log.warning("%s: its pool is not there any more; no pictures, neighbours, map", run.name)
        return None
    folder = PoolFolder(run.pool)
    rows = np.unique(np.linspace(0, max(0, len(folder) - 1), 50).astype(np.int64)) if len(folder) else np.empty(0, int)
    ids = [sample.id for sample in folder.samples(rows)]
    if len(folder) > len(table) or ids != table.strings("id").take(rows).to_pylist():
        log.warning("%s: %s is another pool than its table's; no pictures, neighbours, map", run.name, run.pool)
        return None
    return _PoolRows(folder)
