"""Samples are tokenised part by part, in this process or in several, each part into one file.

In: samples, with the numbers of their pictures. Out: files of arrays, one for each part.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.errors import UserError
from bunny.core.log import Meter
from bunny.core.types import Rejected, Sample
from bunny.text.template import Writer
from bunny.train.grouping import signed_words
from bunny.train.part_files import write_arrays
from bunny.train.picture_parts import Problem
from bunny.train.rows import RowMaker, ShortRow


@dataclass(frozen=True, slots=True)
class Part:
    """Samples to be tokenised. numbers: of each, its pictures. problems: of those pictures that cannot be used."""

    samples: Sequence[Sample]
    numbers: Sequence[Sequence[int]]
    problems: Mapping[int, Problem]
    output: Path


def write_part(part: Part, maker: RowMaker) -> None:
    """Tokenise the part's samples and publish them. Raises UserError on a full disk."""
    rows: list[ShortRow] = []
    kept: list[int] = []
    left_out: list[Rejected] = []
    for at, (sample, numbers) in enumerate(zip(part.samples, part.numbers, strict=True)):
        problem = next((part.problems[number] for number in numbers if number in part.problems), None)
        outcome = _unusable(sample, problem) if problem else maker.row(sample)
        if isinstance(outcome, Rejected):
            left_out.append(outcome)
        else:
            rows.append(outcome)
            kept.append(at)
    samples = [part.samples[at] for at in kept]
    names = [sample.id.encode("utf-8", "surrogatepass") for sample in samples]
    spans = [_spans(row) for row in rows]
    stored: dict[str, Any] = {
        "ids": _joined([row.ids for row in rows], np.int32),
        "ids_counts": [len(row.ids) for row in rows],
        "spans": _joined(spans, np.int32).reshape(-1, 2),
        "spans_counts": [len(some) for some in spans],
        "pictures": [number for at in kept for number in part.numbers[at]],
        "pictures_counts": [len(part.numbers[at]) for at in kept],
        "tokens": [row.tokens for row in rows],
        "learns": [row.learns for row in rows],
        "words": signed_words(samples),
        "kept": kept,
        "cut": np.asarray([row.cut for row in rows], dtype=bool),
        "names": np.frombuffer(b"".join(names), dtype=np.uint8),
        "names_counts": [len(name) for name in names],
        "left_out": np.frombuffer(json.dumps([asdict(item) for item in left_out]).encode(), dtype=np.uint8),
    }
    lists = {name: np.asarray(some, dtype=np.int32) for name, some in stored.items() if isinstance(some, list)}
    write_arrays(part.output, {**stored, **lists})


def write_parts(parts: Iterable[Part], writer: Writer, max_length: int, workers: int, bar: Meter) -> None:
    """All parts, in this process (`workers` below 2) or in so many. Raises UserError."""
    if workers < 2:
        maker = RowMaker(writer, max_length)
        for part in parts:
            write_part(part, maker)
            bar.advance(len(part.samples))
        return
    packed = pickle.dumps((writer, max_length))
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of the threads that run here
    running: dict[Future[None], int] = {}
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as crew:
            for part in parts:
                bare = [replace(sample, meta={}) for sample in part.samples]
                running[crew.submit(_write, packed, replace(part, samples=bare))] = len(bare)
                if len(running) > 2 * workers:
                    _collect(running, bar)
            while running:
                _collect(running, bar)
    except BrokenProcessPool:
        raise UserError(
            "a process that tokenised has died", fix="check the memory, or set `workers: 0`; finished parts are kept"
        ) from None


def _collect(running: dict[Future[None], int], bar: Meter) -> None:
    for done in wait(running, return_when=FIRST_COMPLETED).done:
        done.result()
        bar.advance(running.pop(done))


def _write(packed: bytes, part: Part) -> None:
    write_part(part, _unpacked(packed))


@lru_cache(maxsize=1)
def _unpacked(packed: bytes) -> RowMaker:
    return RowMaker(*pickle.loads(packed))


def _unusable(sample: Sample, problem: Problem) -> Rejected:
    return Rejected(sample.id, problem.where, problem.reason, problem.detail)


def _spans(row: ShortRow) -> npt.NDArray[Any]:
    """(S, 2) int64 starts and ends of the stretches that are learnt."""
    edges = np.flatnonzero(np.diff(row.learnt, prepend=False, append=False))
    return edges.reshape(-1, 2)


def _joined(some: Sequence[npt.NDArray[Any]], kind: type) -> npt.NDArray[Any]:
    return np.concatenate([*(one.ravel() for one in some), np.empty(0, dtype=np.int64)]).astype(kind)
