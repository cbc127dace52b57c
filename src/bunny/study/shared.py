"""What the cells of a study share: the pool with its vectors, and each selection. Made once, by whoever comes first.

In: a `Study` and its folder. Out: the pool, and for each cell the set that it learns from, as an artifact with
`decisions.parquet` and `samples.parquet`. Processes and machines that see the same folder wait for each other where
they need the same thing; a lock dies with its process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.recipe import Block
from bunny.core.store import MANIFEST, Artifact, Store, fingerprint, write_atomic
from bunny.curate.pool import PoolFolder
from bunny.pipeline import stages
from bunny.pipeline.curated import CURATED, POOL, SAMPLES
from bunny.study.cells import Cell
from bunny.study.pollute import pollute, polluted_source
from bunny.study.recipe import SAMPLE, Study, steps_of

POLLUTED, SELECTIONS, CLOCK = "polluted", "selections", "curation_seconds.json"
NO_VECTORS = frozenset({"exact", "rules", "alt_text", "language", "perceptual", "balance", "instructions", SAMPLE})
"""Steps that need no vectors: a selection of these alone does not pay for the embedding."""


@contextmanager
def claimed(lock: Path, wait: bool = True) -> Iterator[bool]:
    """Whether this process alone works there until the block ends; with `wait`, it does sooner or later."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        if not wait:
            yield False
            return
        log.info("%s: another process is at work there; waiting for it", lock.parent)
        held.acquire()
    try:
        yield True
    finally:
        held.release()


def cpu_seconds() -> float:
    """Processor time of this process and of those that it has started and that have ended."""
    return sum(os.times()[:4])


@contextmanager
def counted(path: Path, part: str) -> Iterator[None]:
    """Adds the processor time of the block to `part` in a JSON file, over all attempts that end by themselves."""
    before = cpu_seconds()
    try:
        yield
    finally:
        known = spent(path)
        known[part] = known.get(part, 0.0) + cpu_seconds() - before
        write_atomic(path, json.dumps(known))


def spent(path: Path) -> dict[str, float]:
    """CPU-seconds by part; empty if nothing was counted."""
    known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known


class Shared:
    """See the module. Raises UserError if the base recipe has no pool to select from."""

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.base = study.base({})
        if self.base.pool is None or self.base.curate is None:
            raise UserError(f"{study.recipe}: no `pool` to select from", fix="name a recipe that has one")
        if self.base.merge is not None:
            raise UserError(f"{study.recipe}: merges two models", fix="leave `second` and `merge` out with `set`")
        self.choices = study.choices()

    @property
    def source(self) -> Block:
        """What the pool is read from: the base recipe's source, or the spoilt copy of it."""
        assert self.base.pool
        return polluted_source(self.folder.resolve() / POLLUTED) if self.study.pollute else self.base.pool.source

    @cached_property
    def pool_mark(self) -> str:
        """Fingerprint of the pool, known before it is made."""
        assert self.base.pool and self.base.curate
        told = {"source": self.base.pool.source, "embedder": self.base.curate.embedder}
        if self.study.pollute:
            told["pollute"] = self.study.pollute.model_dump(mode="json")
        return fingerprint("pool", told, {"files": stages.fingerprint_named([self.base.pool.source], self.base)})

    @cached_property
    def pool(self) -> PoolFolder:
        """The pool with its vectors, made the first time."""
        from bunny.pipeline.curating import engine_of
        from bunny.pipeline.pool_tasks import pool_of

        section = self.base.curate
        assert section and self.base.pool
        with claimed(self.folder / f".{POOL}.lock"):
            if self.study.pollute:
                self._pollute()
            with counted(self.folder / CLOCK, POOL):
                made = pool_of(
                    self.source,
                    self.base.locate("."),
                    section.embedder,
                    self.folder / POOL,
                    engine_of(section, self.folder),
                    part_rows=section.part_rows,
                    threads=section.threads,
                )
        return made

    @property
    def pool_seconds(self) -> float:
        """CPU-seconds that reading and embedding the pool took."""
        return spent(self.folder / CLOCK).get(POOL, 0.0)

    def selection_mark(self, cell: Cell) -> str:
        """Fingerprint of the set that a cell learns from."""
        return fingerprint(CURATED, self._settings(cell), {"pool": self.pool_mark})

    def selection(self, cell: Cell) -> Artifact:
        """The set that the cell learns from."""
        root = self.folder / SELECTIONS / cell.part
        with claimed(root / ".claim"):
            return Store(root).make(
                CURATED,
                lambda folder: self._choose(cell, folder),
                settings=self._settings(cell),
                inputs={"pool": self.pool_mark},
            )

    def curation_seconds(self, cell: Cell, selection: Artifact) -> float:
        """CPU-seconds that choosing the cell's set took; the embedding counts for those whose steps need vectors."""
        embedded = any(step["use"] not in NO_VECTORS for step in steps_of(self.choices[cell.selection]))
        return float(selection.manifest["cpu_seconds"]) + (self.pool_seconds if embedded else 0.0)

    def _settings(self, cell: Cell) -> dict[str, Any]:
        return {"steps": steps_of(self.choices[cell.selection]), "share": cell.share, "seed": cell.seed}

    def _pollute(self) -> None:
        assert self.base.pool and self.study.pollute
        how, source, base = self.study.pollute, self.base.pool.source, self.base.locate(".")
        Store(self.folder).make(
            POLLUTED,
            lambda folder: pollute(source, base, how, folder),
            settings=how.model_dump(mode="json"),
            inputs={"files": stages.fingerprint_named([source], self.base)},
        )

    def _choose(self, cell: Cell, folder: Path) -> Mapping[str, Any]:
        """Run the steps, draw the share, and write the table and the samples."""
        from bunny.curate.engine import select
        from bunny.curate.table import write_table

        made = self.pool
        steps = steps_of(self.choices[cell.selection])
        wanted = None if cell.share is None else round(cell.share * len(made))
        drawing = [] if wanted is None else [{"use": SAMPLE, "count": wanted}]
        before, started = cpu_seconds(), time.perf_counter()
        selection = select(made.pool(), [*steps, *drawing], cell.seed, made.rejected(), self.base.locate("."))
        took = cpu_seconds() - before
        kept = selection.kept()
        if not kept.any():
            raise UserError(f"{cell.part}: nothing stays", fix=f"make `{cell.selection}` less strict")
        if wanted is not None and kept.sum() < wanted:
            log.warning("%s: %d rows of the %d that its share allows", cell.part, kept.sum(), wanted)
        write_table(selection, folder / "decisions.parquet")
        made.write_samples(kept, folder / SAMPLES)
        runs = [
            {"step": run.planned.label, "settings": run.planned.block, "in": len(run.rows), "reasons": run.counts()}
            for run in selection.runs
        ]
        rejected = len(selection.rejected)
        told: dict[str, Any] = {
            "samples": len(made) + rejected,
            "embedded": len(made),
            "kept": int(kept.sum()),
            "seed": cell.seed,
        }
        told |= {"embedder": made.model, "steps": runs}
        write_atomic(folder / "summary.json", json.dumps(told, indent=1, ensure_ascii=False))
        return {
            "pairs": len(made),
            "kept": int(kept.sum()),
            "wanted": wanted,
            "cpu_seconds": took,
            "wall_seconds": time.perf_counter() - started,
            "pool_folder": f"../../../{POOL}",
        }


def finished(folder: Path, mark: str) -> Artifact | None:
    """The artifact at `folder`, if it is there and has this fingerprint."""
    if not (folder / MANIFEST).exists():
        return None
    found = Artifact.load(folder)
    return found if found.fingerprint == mark else None
