"""Decontamination: what a benchmark asks about must not be learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from bunny.core.errors import UserError
from bunny.core.types import Decision, IntArray, Pool
from bunny.curate.columns import Rows
from bunny.curate.contamination import Benchmark, benchmark_files, most_alike, read_benchmark, same_text, shared_run
from bunny.curate.step import OrderedStep, column, decision


class Decontaminate(OrderedStep):
    """Drops rows that a benchmark has too: same pixels, nearly the same perceptual hash, picture vectors alike, a run
    of words in common. The reason names the benchmark and, in brackets, its row.

    A benchmark is a run folder or its pool folder (curate it with the same embedder; all its rows count, whatever its
    steps say), or a Parquet file with columns `id`, `sha256` (of the decoded pixels), `phash`, `text`, and vectors
    beside it in `NAME.visual.npy`. What it does not have is not compared; vectors are if `above` is given.
    """

    against: tuple[Path, ...]  # the benchmarks; relative ones are seen from `folder`
    folder: Path = Path()  # the recipe's, supplied by the program; default: the working folder
    bits: int = Field(4, ge=0, le=8, description="of a perceptual hash that may differ")
    above: float | None = Field(None, gt=-1, le=1, description="cosine from which pictures count as the same")
    vectors: str = "visual"  # the column to compare
    words: int = Field(13, ge=0, description="length of a run of words that counts as the same text; 0: no texts")

    @model_validator(mode="after")
    def _something_to_compare(self) -> Decontaminate:
        if not self.against:
            raise ValueError("name at least one benchmark in `against`")
        return self

    def inputs(self) -> list[Path]:
        """The files that say which benchmarks these are; a curation is done again when they change."""
        return [file for path in self.against for file in benchmark_files(self.folder / path)]

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        reasons = np.full(len(pool), "", dtype=object)
        for path in self.against:
            benchmark = read_benchmark(self.folder / path)
            compared = False
            for what, match in self._compare(pool, benchmark):
                compared = True
                for row in np.flatnonzero((match >= 0) & (reasons == "")):
                    reasons[row] = f"{what} {benchmark.name} ({benchmark.row(int(match[row]))})"
            if not compared:
                raise UserError(f"decontaminate: {path} has nothing to compare", fix="see the step's settings")
        return decision(reasons)

    def _compare(self, pool: Pool, benchmark: Benchmark) -> Iterator[tuple[str, IntArray]]:
        """(what is the same, (N,) row of the benchmark or -1) for each way of comparing."""
        has = benchmark.columns
        if "sha256" in has and "sha256" in pool:
            yield "the same pixels as in", same_text(pool["sha256"], has["sha256"])
        if "phash" in has and "phash" in pool:
            yield "nearly the same picture as in", self._hashes(pool, benchmark)
        if self.above is not None and self.vectors in has:
            ours, theirs = Rows.of(column(pool, self.vectors, "decontaminate")), Rows.of(has[self.vectors])
            if len(theirs) and ours.shape[1] != theirs.shape[1]:
                raise UserError(
                    f"decontaminate: {ours.shape[1]} numbers a vector here, {theirs.shape[1]} in {benchmark.name}",
                    fix="make the benchmark's vectors with the recipe's embedder",
                )
            yield f"a picture within a cosine of {self.above:g} in", most_alike(ours, theirs, self.above)
        if self.words and "text" in has and "caption" in pool:
            yield f"a run of {self.words} words as in", shared_run(pool["caption"], has["text"], self.words)

    def _hashes(self, pool: Pool, benchmark: Benchmark) -> IntArray:
        from bunny.curate.hamming import nearest
        from bunny.curate.steps.perceptual import hashes_of

        ours, known = hashes_of(pool["phash"])
        theirs, telling = hashes_of(benchmark.columns["phash"])
        match = np.full(len(pool), -1, np.int64)
        found, _ = nearest(ours[known], theirs[telling], self.bits)
        match[known] = np.where(found >= 0, np.flatnonzero(telling)[found] if telling.any() else -1, -1)
        return match


USE = Decontaminate
