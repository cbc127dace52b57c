"""The seams between packages of one layer: each side is tested with a ten-line stub of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from bunny.core.types import (
    Answer,
    Decision,
    Embedded,
    EvalResult,
    Parsed,
    Pool,
    Question,
    Rejected,
    Sample,
    StoredVectors,
    Task,
)


@runtime_checkable
class Source(Protocol):
    """Reads one on-disk layout. Yields a `Sample` or a `Rejected` for every row, in fixed order; decodes no pixels."""

    def read(self) -> Iterator[Sample | Rejected]: ...


@runtime_checkable
class Sharded(Protocol):
    """A source that can be read in independent pieces."""

    def shards(self) -> Sequence[Mapping[str, Any]]:
        """JSON-able `{use: …}` blocks, one a piece (a tar, a Parquet file); together, in order, they read what the
        source reads."""
        ...


@runtime_checkable
class HasVectors(Protocol):
    """A source whose vectors exist already."""

    def stored(self) -> Mapping[str, StoredVectors]:
        """Column (`image`, `text`, `visual`) -> where its rows are, aligned row by row with what `read` yields
        (a Rejected counts as a row). The source is one piece: of a sharded one, each shard has its own."""
        ...


@runtime_checkable
class Facts(Protocol):
    """What is known of samples besides themselves: the scores of a curation."""

    def rows(self, ids: Sequence[str]) -> Any:
        """An Arrow table with a row for every id, in order, and the same columns every time; none for no ids."""
        ...


@runtime_checkable
class Writer(Protocol):
    """Writes one on-disk layout. A pydantic model: its fields are its settings. The same samples give the same bytes;
    work that is whole is not done again."""

    def write(self, samples: Iterator[Sample], folder: Path, facts: Facts | None = None) -> list[Rejected]:
        """Fill `folder`; the samples that the layout could not take, with reasons. Raises UserError on a full disk."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Runs tasks: in this process, in several, on other machines. Which one never shows in the outcome."""

    def run(self, name: str, tasks: Sequence[Task]) -> None:
        """Returns when every task's output exists. Those that do are not run. name: for the progress display.
        Raises UserError for a task that failed, after the others have been tried."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Turns pictures and texts into vectors of one joint space (CLIP, SigLIP, the demo's classifier + text model)."""

    @property
    def name(self) -> str:
        """Model and settings in one line; part of the fingerprint."""
        ...

    @property
    def dim(self) -> int:
        """Length of the joint vectors."""
        ...

    def embed(self, pictures: Sequence[npt.NDArray[np.uint8]], texts: Sequence[str]) -> Embedded:
        """Vectors of one batch of pairs. pictures: B RGB arrays (H, W, 3); texts: B strings, may be empty."""
        ...


@runtime_checkable
class Step(Protocol):
    """A curation step: looks at a pool, decides, and says why. A pydantic model: its fields are its settings."""

    def decide(self, pool: Pool, rng: np.random.Generator) -> Decision: ...


@runtime_checkable
class Answerer(Protocol):
    """Answers questions about pictures: our model, a stub, or a remote endpoint."""

    @property
    def name(self) -> str:
        """Model identity; part of the answer cache's key."""
        ...

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """One `Answer` per question, in any order, as soon as each is known."""
        ...


@runtime_checkable
class Benchmark(Protocol):
    """One evaluation set: what is asked, how answers are read, how they are scored."""

    @property
    def name(self) -> str: ...

    def questions(self) -> Sequence[Question]: ...

    def parse(self, question: Question, answer: Answer) -> Parsed: ...

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult: ...
