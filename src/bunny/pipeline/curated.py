"""A finished curation on disk: where its files are, what it was made with, rows of its decision table.

In: a run folder (or the curated folder in it). Out: `CuratedRun`, and rows or columns of the table as Arrow gives them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import Block
from bunny.core.store import MANIFEST
from bunny.core.types import Sample

CURATED = "curated"
DECISIONS, SUMMARY, SAMPLES, REJECTED, CARD = (
    "decisions.parquet",
    "summary.json",
    "samples.parquet",
    "rejected.jsonl",
    "README.md",
)
POOL, WORK = "pool", "work"
"""Folders beside the curated one: the pool, and what heavy steps leave for the next run."""


@dataclass(frozen=True)
class CuratedRun:
    """folder: where the decision table is. name: the run as it was called."""

    folder: Path
    name: str

    @property
    def table(self) -> Path:
        return self.folder / DECISIONS

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """Counts, steps with their settings, embedder, seed; empty beside a lone table."""
        return _json(self.folder / SUMMARY)

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        return _json(self.folder / MANIFEST)

    @property
    def steps(self) -> list[Block]:
        """Settings of the steps, in order."""
        return [dict(step["settings"]) for step in self.summary.get("steps", ())]

    @property
    def labels(self) -> list[str]:
        """Names of the steps, in order: `band_2` is the second band."""
        return [str(step["step"]) for step in self.summary.get("steps", ())]

    @property
    def pool(self) -> Path | None:
        """The folder of the pool, if it is still there."""
        places = [self.folder.parent / POOL, self.folder.parent / "vectors"]
        if "pool_folder" in self.manifest:
            places.insert(0, self.folder / str(self.manifest["pool_folder"]))
        return next((place.resolve() for place in places if (place / "pool.json").is_file()), None)

    def samples(self) -> Iterator[Sample]:
        """The samples that stay. Raises UserError if they are not there."""
        from bunny.core.sample_table import iterate_samples

        return iterate_samples(self.folder / SAMPLES)

    def rows(self, columns: Sequence[str] | None = None, where: Any = None) -> Any:
        """An Arrow table of the decision table's rows, in order. columns: those of them that it has; None: all.

        where: a `pyarrow.dataset` expression; row groups that cannot hold such a row are not read.
        """
        import pyarrow as pa
        import pyarrow.dataset as ds

        try:
            table = ds.dataset(self.table, format="parquet")
            known = None if columns is None else [name for name in columns if name in table.schema.names]
            return table.to_table(columns=known, filter=where)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.table}: damaged ({' '.join(str(error).split())})", fix="curate again") from None

    @cached_property
    def columns(self) -> list[str]:
        """Names of the decision table's columns."""
        return [str(name) for name in self.rows(where=_never()).column_names]

    def row(self, id: str) -> dict[str, Any]:
        """The row of a sample. Raises UserError that names near ids."""
        import pyarrow.dataset as ds

        found = self.rows(where=ds.field("id") == id).to_pylist()
        if not found:
            raise UserError(f"{self.name}: no sample is called `{id}`", fix=self._near(id))
        row: dict[str, Any] = found[0]
        return row

    def _near(self, id: str) -> str:
        """The nearest of the ids that start or end as this one does, else of some."""
        import pyarrow.compute as pc

        ids = self.rows(["id"]).column("id")
        word = id.rpartition("/")[2].rpartition("_")[0] or id[:4]
        alike = ids.filter(pc.match_substring(ids, word, ignore_case=True)) if word else ids
        some = (alike if len(alike) else ids).slice(0, 5000).to_pylist()
        hint = nearest(id, some)
        return (
            hint
            if hint.startswith("did")
            else f"the first are called {', '.join(map(str, ids.slice(0, 3).to_pylist()))}"
        )


def find_run(path: Path) -> CuratedRun:
    """The curation at a run folder, a curated folder, or its decision table. Raises UserError, naming near ones."""
    path = path if path.name != DECISIONS else path.parent
    for folder in (path, path / CURATED):
        if (folder / DECISIONS).is_file():
            return CuratedRun(folder, str(path))
    parent = path.parent
    others = [
        str(one) for one in (parent.iterdir() if parent.is_dir() else ()) if (one / CURATED / DECISIONS).is_file()
    ]
    hint = nearest(str(path), others) if others else "curate first: `bunny curate run RECIPE`"
    what = "no finished curation there" if path.exists() else "no such run"
    raise UserError(f"{path}: {what}", fix=hint)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error})", fix="curate again") from None
    return content if isinstance(content, dict) else {}


def _never() -> Any:
    import pyarrow.compute as pc

    return pc.scalar(False)
