"""Rows that a benchmark has too: a benchmark's hashes, vectors and texts in, the row that matches out, or -1.

A benchmark is a pool folder (its steps do not matter), a run's folder that has one, or a Parquet file with some of the
columns `id`, `sha256`, `phash`, `text` (or `caption`), and beside it `NAME.visual.npy` or `NAME.image.npy`: the vectors
of its rows. All that a benchmark has is held in memory; the pool is read block by block.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bunny.core.errors import UserError
from bunny.core.types import FloatArray, IntArray
from bunny.curate.columns import Rows
from bunny.curate.pool import POOL, open_pool
from bunny.curate.texts import blocks

TILE = 2048
DOUBT = 1e-5  # float32 products this near to the threshold are done again in float64
SHORTEST = 8  # words of a text that is compared as a whole, being shorter than an n-gram
BESIDE = ("visual", "image")  # vectors that may lie beside a table
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """name: of its file or folder. columns: what is known of its rows, `id` always, the others as in a pool."""

    name: str
    columns: dict[str, Any]

    def __len__(self) -> int:
        return len(self.columns["id"])

    def row(self, number: int) -> str:
        """The row's id."""
        return str(self.columns["id"][number])


def read_benchmark(path: Path) -> Benchmark:
    """Raises UserError if there is none, or if its vectors are not row-aligned."""
    folder = _pool_folder(path)
    if folder is not None:
        pool, _ = open_pool(folder)
        name = path.parent.name if path.name == "pool" else path.name
        return Benchmark(name, {**pool.columns, "text": pool["caption"]})
    if not path.is_file():
        raise UserError(
            f"{path}: no benchmark there", fix="name a pool folder, or a Parquet file with sha256, phash or text"
        )
    return _read_table(path)


def benchmark_files(path: Path) -> list[Path]:
    """The files that change when a benchmark does: a pool's list (its parts are named by what is in them), a table
    and its vectors. Nothing where no benchmark is."""
    folder = _pool_folder(path)
    if folder is not None:
        return [folder / POOL]
    files = [path, *(path.with_suffix(f".{name}.npy") for name in BESIDE)]
    return [file for file in files if file.is_file()]


def _pool_folder(path: Path) -> Path | None:
    """The pool's folder at a path: itself, or in the run's folder."""
    return next((folder for folder in (path, path / "pool") if (folder / POOL).is_file()), None)


def same_text(texts: Any, benchmark: Any) -> IntArray:
    """(N,) row of the benchmark with the same string, the first; -1 where there is none, and for empty ones."""
    known = {text: row for row, text in reversed(list(enumerate(_all(benchmark)))) if text}
    found = np.full(len(texts), -1, np.int64)
    for start, some in blocks(texts):
        found[start : start + len(some)] = [known.get(text, -1) for text in some]
    return found


def shared_run(texts: Any, benchmark: Any, size: int) -> IntArray:
    """(N,) row of the benchmark that shares a run of `size` words with a text, -1 where there is none.

    Words are runs of letters and digits, in NFKC and small letters. A benchmark's text of fewer than `size` but at
    least 8 words is looked for as a whole: GPT-3's check (Brown et al. 2020, appendix C) used 8 to 13 words likewise.
    """
    runs: dict[tuple[str, ...], int] = {}
    for row, text in enumerate(_all(benchmark)):
        words = _words(text)
        length = min(size, len(words)) if len(words) >= min(SHORTEST, size) else len(words) + 1
        for run in _runs(words, length):
            runs.setdefault(run, row)
    lengths = sorted({len(run) for run in runs})
    found = np.full(len(texts), -1, np.int64)
    for start, some in blocks(texts):
        for row, text in enumerate(some, start):
            words = _words(text) if runs else []
            met = (runs[run] for length in lengths for run in _runs(words, length) if run in runs)
            found[row] = next(met, -1)
    return found


def most_alike(vectors: Rows, benchmark: Rows, above: float) -> IntArray:
    """(N,) row of the benchmark with the highest cosine of at least `above`, -1 where there is none; of equal ones the
    first. Float32 products; what they leave in doubt is settled in float64."""
    found = np.full(len(vectors), -1, np.int64)
    best = np.full(len(vectors), -np.inf)
    theirs = [(start, block) for start, block in benchmark.blocks(TILE)]
    for start, ours in vectors.blocks(TILE):
        for first, block in theirs:
            i, j = np.nonzero(ours @ block.T >= above - DOUBT)  # NaN rows match nothing
            exact = _exact(ours, block, i, j)
            order = np.lexsort((j, -exact, i))
            order = order[np.concatenate([[True], np.diff(i[order]) > 0])[: len(order)]]  # each row's highest
            rows, others, cosine = start + i[order], first + j[order], exact[order]
            better = (cosine >= above) & (cosine > best[rows])
            best[rows[better]], found[rows[better]] = cosine[better], others[better]
    return found


def _exact(left: FloatArray, right: FloatArray, i: IntArray, j: IntArray) -> FloatArray:
    """(n,) float64 cosines of pairs of rows, to nine decimals: identical pairs have identical ones everywhere."""
    cosine = np.empty(len(i))
    for start in range(0, len(i), TILE):
        some = slice(start, start + TILE)
        cosine[some] = np.einsum("nd,nd->n", left[i[some]].astype(np.float64), right[j[some]].astype(np.float64))
    return np.round(cosine, 9)


def _read_table(path: Path) -> Benchmark:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())})") from None
    columns: dict[str, Any] = {"id": np.arange(table.num_rows)}
    for name, kept in (("id", "id"), ("sha256", "sha256"), ("caption", "text"), ("text", "text")):
        if name in table.column_names:
            columns[kept] = np.array(table.column(name).to_pylist(), dtype=object)
    if "phash" in table.column_names:
        columns["phash"] = np.array([value or 0 for value in table.column("phash").to_pylist()], np.uint64)
    for name in BESIDE:
        beside = path.with_suffix(f".{name}.npy")
        if beside.is_file():
            columns[name] = _vectors(beside, table.num_rows)
    if len(columns) == 1:
        raise UserError(f"{path}: none of the columns sha256, phash, text", fix="add what is to be compared")
    return Benchmark(path.stem, columns)


def _vectors(path: Path, rows: int) -> Rows:
    vectors: FloatArray = np.load(path, mmap_mode="r")
    if vectors.ndim != 2 or len(vectors) != rows:
        raise UserError(f"{path}: {vectors.shape}, but the table has {rows} rows", fix="give one vector a row")
    return Rows.of(vectors)


def _all(texts: Any) -> Iterator[str]:
    for _, some in blocks(texts):
        yield from some


def _words(text: str) -> list[str]:
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())


def _runs(words: list[str], length: int) -> Iterator[tuple[str, ...]]:
    """All runs of so many words."""
    return zip(*(words[start:] for start in range(length)), strict=False) if length else iter(())
